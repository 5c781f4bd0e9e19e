"""Sets of multiple-choice questions: ARC, CommonsenseQA and ReClor, in the schemas of the hub and of their authors.

ARC (Clark et al., 2018; CC BY-SA 4.0), CommonsenseQA (Talmor et al., 2019; MIT), and ReClor (Yu et al., 2020;
non-commercial, only from its authors).
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from jaxalign.data.account import Log, account, beyond, count, file_names, unsaid
from jaxalign.data.columns import Columns
from jaxalign.data.datasets.question import SKIP, Flaw, Question, read_file
from jaxalign.data.hub import download
from jaxalign.data.order import Stream
from jaxalign.errors import UserError
from jaxalign.runs.reading import not_a_file


@dataclass(frozen=True)
class Questions:
    """A data set: its three splits, and notes for the reader on how they were made."""

    name: str
    train: list[Question]
    validation: list[Question]
    test: list[Question]
    notes: tuple[str, ...] = ()
    solved: tuple[Question, ...] = ()
    """Questions with solutions, from which a first adapter learns the form of answers."""

    @property
    def sizes(self) -> str:
        """The numbers of questions, in words."""
        sides = {"solved": self.solved, "train": self.train, "validation": self.validation, "test": self.test}
        return ", ".join(f"{len(questions):,} {name}" for name, questions in sides.items() if questions)


@dataclass(frozen=True)
class Source:
    """Where a set is on the hub: its files (patterns) in a repository, None for a set that is not there."""

    repository: str | None
    revision: str
    files: tuple[str, ...]


QUESTION_SETS = {
    "arc": Source(
        "allenai/ai2_arc",
        "210d026faf9955653af8916fad021475a3f00453",
        ("ARC-Easy/*.parquet", "ARC-Challenge/*.parquet"),
    ),
    "csqa": Source("tau/commonsense_qa", "94630fe30dad47192a8546eb75f094926d47e155", ("data/*.parquet",)),
    "reclor": Source(None, "", ()),
    "jsonl": Source(None, "", ()),
}

HELD_OUT = 0.1
"""Share of the training questions that is held out if the set lacks a split."""

SUFFIXES = (".jsonl", ".json", ".csv", ".tsv", ".parquet")
"""Types of files, best first. If a split has several (ARC's authors publish .jsonl and .csv), the best one is read."""

QUESTION_SPLITS = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "dev", "val"),
    "test": ("test",),
}


def load_questions(
    name: str,
    path: str | None,
    *,
    seed: int = 0,
    limit: int | None = None,
    exclude: Iterable[str] = (),
    skip: bool = False,
    offline: bool = False,
    columns: Columns | None = None,
    log: Log = unsaid,
) -> Questions:
    """Return a set of questions, from a folder with files for train, validation and test, or from the hub.

    If the labels of the test are not published (there is no file, or its labels are null), the official validation
    split is the test, and a tenth of the training questions is held out for validation.

    Args:
        name: `arc`, `csqa` or `reclor`; `jsonl` for a user's files.
        path: the folder; the name of each file contains the name of its split. For `jsonl` it may be a single file of
            training questions. None for the hub.
        seed: decides which training questions are held out.
        limit: the largest number of questions of each split; None for all.
        skip: whether questions that cannot be used are left out and counted; otherwise they are an error.
        exclude: ids of questions that are left out (few-shot examples), before any are held out.
        offline: whether the network may not be used.
        columns: for `jsonl`, other names of the fields.
        log: called with the line that says which files were read, and what is left aside.

    Raises:
        UserError: there are no such files; a file has another schema (which fields it lacks); a question has no
            answer, fewer than two options, or two equal ones; an id occurs twice; no question of a split is left.
    """
    splits: dict[str, list[Question]] = {}
    rows: dict[Path, str] = {}
    hidden, places, examples, excluded = [], {}, set(exclude), 0
    there, aside, notes = _find_splits(name, path, offline)
    own = (columns or Columns()) if name == "jsonl" else None
    for split, files in there.items():
        found = {file: read_file(file, places, own) for file in files}
        rows |= {file: f"{split}, {count(len(mine), 'row')}" for file, mine in found.items()}
        usable = _usable([one for mine in found.values() for one in mine], split, skip)
        if usable is None:
            hidden.append(split)
            continue
        questions, flaws = usable
        if flaws:
            more = ", ..." if len(flaws) > 1 else ""
            read = len(questions) + len(flaws)
            notes.append(f"{len(flaws)} of {read} {split} questions left out: {flaws[0].words}{more}")
            aside.append(f"{len(flaws):,} of {split} that cannot be used")
        splits[split] = [question for question in questions if question.id not in examples]
        excluded += len(questions) - len(splits[split])
    if "train" not in splits:
        raise UserError(f"{path or name}: there is no file of training questions: its name must contain 'train'")
    if excluded:
        notes.append(f"{excluded} questions are few-shot examples and were left out")
        aside.append(f"{excluded:,} few-shot examples")
    if not splits["train"]:
        raise UserError(f"{path or name}: all {excluded} questions are few-shot examples: give more questions")
    sides, made_of_others = _all_three(splits, hidden, seed, path or name)
    train, validation, test = (sides[split][:limit] for split in QUESTION_SPLITS)
    made = Questions(name, train, validation, test, (*notes, *made_of_others))
    cut = [f"{beyond(len(part), limit)} of {split}" for split, part in sides.items() if beyond(len(part), limit)]
    log(account("questions", rows, made.sizes, [*aside, *cut]))
    return made


def _usable(read: Sequence[Question | Flaw], split: str, skip: bool) -> tuple[list[Question], list[Flaw]] | None:
    """Return the questions of a split, and the flaws of those that are left out; None if the labels are hidden.

    Raises:
        UserError: a question cannot be used, and either `skip` is false or no question is left.
    """
    questions = [one for one in read if isinstance(one, Question)]
    flaws = [one for one in read if isinstance(one, Flaw)]
    if not questions and split != "train" and any(flaw.unlabelled for flaw in flaws):
        return None
    if flaws and not (skip and questions):
        way_out = f"no other of the {len(read)} {split} questions can be used" if skip else SKIP
        raise UserError(f"{flaws[0].words}; {way_out}")
    return questions, flaws


def _all_three(
    splits: Mapping[str, list[Question]], hidden: Sequence[str], seed: int, source: str
) -> tuple[dict[str, list[Question]], list[str]]:
    """Return train, validation and test, and a note on those that the set lacks and that were made of the others."""
    train, validation, test = (splits.get(split, []) for split in QUESTION_SPLITS)
    absent = next((split for split in ("test", "validation") if not splits.get(split)), "")
    why = f"the {absent} labels are hidden" if absent in hidden else f"there is no {absent} split"
    notes = []
    if not test and validation:
        notes.append(f"{why}: the official validation is the test, and {HELD_OUT:.0%} of train validates")
        test, validation = validation, []
    elif not test:
        notes.append(f"{why}, and no validation split: of train {HELD_OUT:.0%} validates and as much is the test")
        train, test = _hold_out(train, seed, source)
    elif not validation:
        notes.append(f"{why}: {HELD_OUT:.0%} of train validates")
    if not validation:
        train, validation = _hold_out(train, seed + 1, source)
    return {"train": train, "validation": validation, "test": test}, notes


def _hold_out(questions: Sequence[Question], seed: int, source: str) -> tuple[list[Question], list[Question]]:
    """Return (kept, held out): the share `HELD_OUT` of the questions, at least one, drawn by the seed."""
    count = max(round(HELD_OUT * len(questions)), 1)
    if len(questions) <= count:
        raise UserError(f"{source}: {len(questions)} training questions are too few to hold any out: give more")
    order = np.random.Generator(np.random.PCG64([seed, Stream.SPLIT])).permutation(len(questions))
    chosen = set(order[:count].tolist())
    kept = [question for index, question in enumerate(questions) if index not in chosen]
    return kept, [question for index, question in enumerate(questions) if index in chosen]


def _find_splits(name: str, path: str | None, offline: bool) -> tuple[dict[str, list[Path]], list[str], list[str]]:
    """Return the files of each split, in words the files that are left aside, and notes for the reader."""
    source, aside, notes = QUESTION_SETS[name], [], []
    if path is None:
        if source.repository is None:
            raise UserError(
                f"dataset={name} is not on the hub: get it from its authors, and give the folder as dataset.path"
            )
        files = download(source.repository, source.revision, source.files, offline=offline)
    else:
        folder = Path(path)
        if name == "jsonl" and not not_a_file(folder):
            return {"train": [folder]}, [], []
        if not folder.is_dir():
            raise UserError(f"dataset.path={path} is not a folder: give one with files for train, validation and test")
        levels = ("*", "*/*", "*/*/*")  # and not deeper, because a path such as / holds everything
        every = [file for level in levels for file in folder.glob(level) if file.suffix.lower() in SUFFIXES]
        every.sort(key=lambda file: SUFFIXES.index(file.suffix.lower()), reverse=True)
        files = sorted({file.with_suffix(""): file for file in every}.values())  # the last of a stem is the best
        aside = [f"{one} (there in a better format)" for one in file_names(sorted({*every} - {*files}))]
    found: dict[str, list[Path]] = {split: [] for split in QUESTION_SPLITS}
    for file in files:
        split = _split_of(file.stem)
        if split is None:
            aside.append(f"{file_names([file])[0]} (its name holds no split)")
        else:
            found[split].append(file)
    if not any(found.values()):
        raise UserError(f"{path} holds no file for train, validation or test ({', '.join(SUFFIXES)})")
    cut = [file for file in found["validation"] if "train" in _words(file.stem)]
    official = [file for file in found["validation"] if file not in cut]
    if cut and official and not found["test"]:  # as CREST's authors publish CommonsenseQA
        found |= {"validation": cut, "test": official}
        notes.append(
            f"{', '.join(file_names(cut))} was cut from train and validates: the official validation is the test"
        )
    return {split: members for split, members in found.items() if members}, aside, notes


def _words(stem: str) -> list[str]:
    return re.findall("[a-z]+", stem.lower())


def _split_of(stem: str) -> str | None:
    """Return the split that a file's name holds, None for none.

    If it holds several, the last one counts, because train_valid is a part of train that validates. A split inside a
    word counts only if no word is one.

    >>> _split_of("train_rand_split"), _split_of("CSQA_train_valid"), _split_of("mytrain"), _split_of("notes")
    ('train', 'validation', 'train', None)
    """
    exact = [split for word in _words(stem) for split, known in QUESTION_SPLITS.items() if word in known]
    inside = [split for split, known in QUESTION_SPLITS.items() if any(word in stem.lower() for word in known)]
    return exact[-1] if exact else inside[0] if inside else None
