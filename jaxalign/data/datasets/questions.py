"""Sets of multiple-choice questions: ARC, CommonsenseQA and ReClor, in the schemas of the hub and of their authors.

ARC (Clark et al., 2018; CC BY-SA 4.0), CommonsenseQA (Talmor et al., 2019; MIT), and ReClor (Yu et al., 2020;
non-commercial, only from its authors).
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxalign.data.files import Row, read_table
from jaxalign.data.hub import download
from jaxalign.data.order import Stream
from jaxalign.errors import UserError, did_you_mean

LETTERS = "ABCDEFGHIJ"
"""What options are called in prompts, whatever the file calls them."""


@dataclass(frozen=True)
class Question:
    """A question, its options, and which of them is right (by index); `passage` and the worked `solution` are "" where
    there is none."""

    id: str
    text: str
    options: tuple[str, ...]
    gold: int
    passage: str = ""
    solution: str = ""

    @property
    def letters(self) -> str:
        """The names of its options."""
        return LETTERS[: len(self.options)]


@dataclass(frozen=True)
class Questions:
    """A data set: its three splits, and notes for the reader on how they were made."""

    name: str
    train: list[Question]
    validation: list[Question]
    test: list[Question]
    notes: tuple[str, ...] = ()
    seed: tuple[Question, ...] = ()
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
}

HELD_OUT = 0.1
"""Share of the training questions that is held out if the set lacks a split."""

SUFFIXES = (".jsonl", ".json", ".csv", ".parquet")
"""Types of files, best first. If a split has several (ARC's authors publish .jsonl and .csv), the best one is read."""

SKIP = "mend it, or give dataset.skip=true to leave such questions out"
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
) -> Questions:
    """Return a data set from a folder with files for train, validation and test, or (`path` None) from the hub.

    Where no test labels are published (no such file, or its labels are null), the official validation is the test, and
    a seeded tenth of train validates.

    Args:
        name: `arc`, `csqa` or `reclor`.
        path: a folder; the files' names begin with, or contain, the split's.
        seed: of the part of train that is held out.
        limit: so many questions of each split at most; None for all.
        skip: leave out the questions that are unusable, and count them, instead of stopping.
        exclude: ids that are left out (those of few-shot examples), before anything is held out.
        offline: never touch the network.

    Raises:
        UserError: no such data; a file of another schema (which fields it lacks); a question without its gold option,
            with fewer than two options, with two alike; an id that occurs twice; no question of a split that is left.
    """
    if name not in QUESTION_SETS:
        raise UserError(f"dataset.name={name} is not known{did_you_mean(name, QUESTION_SETS)}")
    splits: dict[str, list[Question]] = {}
    notes, hidden, places, examples, excluded = [], [], {}, set(exclude), 0
    for split, files in _find_splits(name, path, offline).items():
        read = [one for file in files for one in _read_file(file, places)]
        questions = [one for one in read if isinstance(one, Question)]
        flaws = [one for one in read if isinstance(one, _Flaw)]
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


class _Flaw(NamedTuple):
    """Why a question cannot be used; `unlabelled`: for nothing but that its answer is not there."""

    words: str
    unlabelled: bool


class _Parts(NamedTuple):
    """What a row says, whatever its schema; `answer` is the field that names the right one of `labels`."""

    id: Any
    text: Any
    passage: Any
    options: Sequence[Any]
    labels: Sequence[Any]
    answer: str


def _read_file(path: Path, places: dict[str, str]) -> list[Question | _Flaw]:
    """Return the questions of a file in order, or why they cannot be used; `places` holds where each id stands."""
    rows = read_table(path)
    if not rows:
        raise UserError(f"{path} holds no question")
    found = []
    for row in rows:
        parts = _parts(row)
        id = "" if parts.id is None else str(parts.id)
        if not id:
            raise UserError(f"{row.place} has an empty id: every question needs its own")
        if id in places:
            raise UserError(f"{row.place}: id {id} occurs twice (first: {places[id]}): every id must be its own")
        places[id] = row.place
        found.append(_checked(row, id, parts))
    return found


def _checked(row: Row, id: str, parts: _Parts) -> Question | _Flaw:
    texts = ["" if option is None else str(option).strip() for option in parts.options]
    labels = [str(label) for label in parts.labels]
    answer = row.fields.get(parts.answer)
    unlabelled = False
    if not isinstance(parts.text, str) or not parts.text.strip():
        words = "has no text"
    elif len(texts) < 2:
        words = f"has {len(texts)} option{'' if texts else 's'}: it needs at least 2"
    elif len(texts) > len(LETTERS):
        words = f"has {len(texts)} options: at most {len(LETTERS)} can be named"
    elif not all(texts):
        words = "has an option without text"
    elif (text := _twice(texts)) is not None:
        words = f"has the option {text!r} twice"
    elif len(labels) != len(texts):
        words = f"has {len(texts)} options and {len(labels)} labels: give each option its own"
    elif (label := _twice(labels)) is not None:
        words = f"has the label {label!r} twice"
    elif answer in (None, ""):
        unlabelled, lacks = True, parts.answer not in row.fields
        words = f"has no label: its {parts.answer} is {f'missing (its {_named(row.fields)})' if lacks else 'empty'}"
    elif str(answer) not in labels:
        words = f"has the answer {answer!r}, which is none of its options {labels}"
    else:
        passage = str(parts.passage or "").strip()
        return Question(id, parts.text.strip(), tuple(texts), labels.index(str(answer)), passage)
    return _Flaw(f"{row.place}: question {id} {words}", unlabelled)


def _twice(texts: Sequence[str]) -> str | None:
    return next((one for number, one in enumerate(texts) if one in texts[:number]), None)


def _parts(row: Row) -> _Parts:
    """Return the parts of a row of ReClor, of the hub, or of ARC or CommonsenseQA as their authors publish them (the
    question holds stem and choices); raises UserError for any other."""
    fields = row.fields
    question = fields.get("question")
    if "answers" in fields and "choices" not in fields:
        _need(row, "", fields, ("id_string", "context", "question", "answers"))
        options = fields["answers"]
        if not isinstance(options, list):
            raise UserError(f"{row.place}: answers must be a list of texts, and is {options!r:.60}")
        return _Parts(fields["id_string"], question, fields["context"], options, range(len(options)), "label")
    if isinstance(question, Mapping):
        _need(row, "", fields, ("id",))
        _need(row, "question.", question, ("stem", "choices"))
        question, choices = question["stem"], question["choices"]
    else:
        _need(row, "", fields, ("id", "question", "choices"))
        choices = fields["choices"]
    texts, labels = _choices(row.place, choices)
    return _Parts(fields["id"], question, "", texts, labels, "answerKey")


def _need(row: Row, inside: str, given: Mapping[str, Any], names: Sequence[str]) -> None:
    missing = [f"{inside}{name}" for name in names if name not in given]
    if missing:
        raise UserError(
            f"{row.place} lacks {', '.join(missing)}: expected id, question, choices (text and label) and answerKey, "
            f"or ReClor's id_string, context, question, answers and label; its {_named(given)}"
        )


def _named(fields: Mapping[str, Any]) -> str:
    return f"fields are: {', '.join(map(str, fields)) or 'none'}"


def _choices(place: str, choices: Any) -> tuple[Sequence[Any], Sequence[Any]]:
    """Return the texts and the labels of options, which stand in two lists (the hub) or one by one (the authors)."""
    names = ("text", "label")
    if isinstance(choices, Mapping) and all(isinstance(choices.get(name), list) for name in names):
        return choices["text"], choices["label"]
    if isinstance(choices, list) and all(isinstance(one, Mapping) and set(names) <= set(one) for one in choices):
        return [one["text"] for one in choices], [one["label"] for one in choices]
    raise UserError(
        f"{place}: choices must hold the lists text and label, or be a list with a text and a label for each option; "
        f"it is {choices!r:.60}"
    )
