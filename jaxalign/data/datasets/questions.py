"""Sets of multiple-choice questions: ARC, CommonsenseQA and ReClor, in the schemas of the hub and of their authors.

ARC (Clark et al., 2018; CC BY-SA 4.0), CommonsenseQA (Talmor et al., 2019; MIT), and ReClor (Yu et al., 2020;
non-commercial, only from its authors).
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from jaxalign.data.columns import Columns
from jaxalign.data.datasets.question import SKIP, Flaw, Question, read_file
from jaxalign.data.hub import download
from jaxalign.data.order import Stream
from jaxalign.errors import UserError


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

SUFFIXES = (".jsonl", ".json", ".csv", ".parquet")
"""Types of files, best first. If a split has several (ARC's authors publish .jsonl and .csv), the best one is read."""

QUESTION_SPLITS = {"train": ("train",), "validation": ("validation", "valid", "dev", "val"), "test": ("test",)}


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
) -> Questions:
    """Return a set of questions, from a folder with files for train, validation and test, or from the hub.

    If the labels of the test are not published (there is no file, or its labels are null), the official validation
    split is the test, and a tenth of the training questions is held out for validation.

    Args:
        name: `arc`, `csqa` or `reclor`; `jsonl` for a user's files.
        path: the folder; the name of each file contains that of its split. For `jsonl` it may be a single file of
            training questions. None for the hub.
        seed: decides which training questions are held out.
        limit: the largest number of questions of each split; None for all.
        skip: whether questions that cannot be used are left out and counted; otherwise they are an error.
        exclude: ids of questions that are left out (few-shot examples), before any are held out.
        offline: whether the network may not be used.
        columns: for `jsonl`, other names of the fields.

    Raises:
        UserError: there are no such files; a file has another schema (which fields it lacks); a question has no
            answer, fewer than two options, or two equal ones; an id occurs twice; no question of a split is left.
    """
    splits: dict[str, list[Question]] = {}
    notes, hidden, places, examples, excluded = [], [], {}, set(exclude), 0
    for split, files in _find_splits(name, path, offline).items():
        own = (columns or Columns()) if name == "jsonl" else None
        read = [one for file in files for one in read_file(file, places, own)]
        questions = [one for one in read if isinstance(one, Question)]
        flaws = [one for one in read if isinstance(one, Flaw)]
        if not questions and split != "train" and any(flaw.unlabelled for flaw in flaws):
            hidden.append(split)
            continue
        if flaws and not (skip and questions):
            way_out = f"no other of the {len(read)} {split} questions can be used" if skip else SKIP
            raise UserError(f"{flaws[0].words}; {way_out}")
        if flaws:
            more = ", ..." if len(flaws) > 1 else ""
            notes.append(f"{len(flaws)} of {len(read)} {split} questions left out: {flaws[0].words}{more}")
        splits[split] = [question for question in questions if question.id not in examples]
        excluded += len(questions) - len(splits[split])
    if "train" not in splits:
        raise UserError(f"{path or name}: there is no file of training questions: its name must contain 'train'")
    if excluded:
        notes.append(f"{excluded} questions are few-shot examples and were left out")
    train, validation, test = (splits.get(split, []) for split in QUESTION_SPLITS)
    if not train:
        raise UserError(f"{path or name}: all {excluded} questions are few-shot examples: give more questions")
    absent = next((split for split in ("test", "validation") if not splits.get(split)), "")
    why = f"the {absent} labels are hidden" if absent in hidden else f"there is no {absent} split"
    if not test and validation:
        notes.append(f"{why}: the official validation is the test, and {HELD_OUT:.0%} of train validates")
        test, validation = validation, []
    elif not test:
        notes.append(f"{why}, and no validation split: of train {HELD_OUT:.0%} validates and as much is the test")
        train, test = _hold_out(train, seed)
    elif not validation:
        notes.append(f"{why}: {HELD_OUT:.0%} of train validates")
    if not validation:
        train, validation = _hold_out(train, seed + 1)
    return Questions(name, train[:limit], validation[:limit], test[:limit], tuple(notes))


def _hold_out(questions: Sequence[Question], seed: int) -> tuple[list[Question], list[Question]]:
    """Return (kept, held out): the share `HELD_OUT` of the questions, at least one, drawn by the seed."""
    count = max(round(HELD_OUT * len(questions)), 1)
    if len(questions) <= count:
        raise UserError(f"{len(questions)} training questions are too few to hold any out: give more")
    order = np.random.Generator(np.random.PCG64([seed, Stream.SPLIT])).permutation(len(questions))
    chosen = set(order[:count].tolist())
    kept = [question for index, question in enumerate(questions) if index not in chosen]
    return kept, [question for index, question in enumerate(questions) if index in chosen]


def _find_splits(name: str, path: str | None, offline: bool) -> dict[str, list[Path]]:
    source = QUESTION_SETS[name]
    if path is None:
        if source.repository is None:
            raise UserError(
                f"dataset={name} is not on the hub: get it from its authors, and give the folder as dataset.path"
            )
        files = download(source.repository, source.revision, source.files, offline=offline)
    else:
        folder = Path(path)
        if name == "jsonl" and folder.is_file():
            return {"train": [folder]}
        if not folder.is_dir():
            raise UserError(f"dataset.path={path} is not a folder: give one with files for train, validation and test")
        files = [file for file in folder.rglob("*") if file.suffix.lower() in SUFFIXES]
        files.sort(key=lambda file: SUFFIXES.index(file.suffix.lower()), reverse=True)
        files = sorted({file.with_suffix(""): file for file in files}.values())  # the last of a stem is the best
    found: dict[str, list[Path]] = {split: [] for split in QUESTION_SPLITS}
    for file in files:
        stem = file.stem.lower()
        # `train` is looked for first, because CommonsenseQA's authors call a file train_rand_split.
        split = next((split for split, words in QUESTION_SPLITS.items() if any(word in stem for word in words)), None)
        if split is not None:
            found[split].append(file)
    if not any(found.values()):
        raise UserError(f"{path} holds no file for train, validation or test ({', '.join(SUFFIXES)})")
    return {split: members for split, members in found.items() if members}
