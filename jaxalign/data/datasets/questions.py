"""Multiple-choice questions: ARC, CommonsenseQA and ReClor, in the schemas of the hub and of their authors.

ARC (Clark et al., 2018; CC BY-SA 4.0), CommonsenseQA (Talmor et al., 2019; MIT), ReClor (Yu et al., 2020;
non-commercial, from its authors only).
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from jaxalign.data.datasets.hub import download
from jaxalign.data.datasets.tables import Row, read_table
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
    """A data set: what is trained on, what is chosen by, what is reported; and what a reader should know of them."""

    name: str
    train: list[Question]
    validation: list[Question]
    test: list[Question]
    notes: tuple[str, ...] = ()
    seed: tuple[Question, ...] = ()
    """Solved questions that a starting adapter learns the form of answers from."""


@dataclass(frozen=True)
class Source:
    """Where a data set is on the hub (None: nowhere), and how many of train are held out where a split is missing."""

    repository: str | None
    revision: str
    files: tuple[str, ...]


SOURCES = {
    "arc": Source(
        "allenai/ai2_arc",
        "210d026faf9955653af8916fad021475a3f00453",
        ("ARC-Easy/*.parquet", "ARC-Challenge/*.parquet"),
    ),
    "csqa": Source("tau/commonsense_qa", "94630fe30dad47192a8546eb75f094926d47e155", ("data/*.parquet",)),
    "reclor": Source(None, "", ()),
}

HELD_OUT = 0.1
"""Share of the training questions that validate where the official validation has to be the test."""

SUFFIXES = (".jsonl", ".json", ".csv", ".parquet")
"""What is read, best first: ARC's authors publish each split as .jsonl and as .csv, of which only one is wanted."""

SPLITS = {"train": ("train",), "validation": ("validation", "valid", "dev", "val"), "test": ("test",)}


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
        exclude: ids that are left out of train (those of few-shot examples).
        offline: never touch the network.

    Raises:
        UserError: no such data; a file of another schema (which fields it lacks); a question without its gold option,
            with fewer than two options, with two alike; an id that occurs twice.
    """
    if name not in SOURCES:
        raise UserError(f"dataset.name={name} is not known{did_you_mean(name, SOURCES)}")
    found = _find_splits(name, path, offline)
    splits, notes, hidden = {}, [], []
    seen: dict[str, str] = {}
    for split, files in found.items():
        unusable: list[str] = []
        read = [one for file in files for one in _read_file(file, seen, unusable if skip else None)]
        if unusable:
            notes.append(
                f"{len(unusable)} of {len(read) + len(unusable)} {split} questions left out: {unusable[0]}, ..."
            )
        labelled = [question for question, known in read if known]
        if len(labelled) < len(read):
            if labelled or split == "train":
                first = next(question.id for question, known in read if not known)
                raise UserError(f"{files[0]}: question {first} has no label: remove it, or give its answer")
            hidden.append(split)
        elif labelled:
            splits[split] = labelled
    if "train" not in splits:
        raise UserError(f"{path or name}: there is no file of training questions: its name must contain 'train'")
    train = splits["train"]
    validation, test = splits.get("validation", []), splits.get("test", [])
    if not test:
        why = "the test labels are hidden" if "test" in hidden else "there is no test split"
        if validation:
            notes.append(f"{why}: the official validation is the test, and {HELD_OUT:.0%} of train validates")
            test, validation = validation, []
        else:
            notes.append(f"{why}, and no validation split: of train {HELD_OUT:.0%} validates and as much is the test")
            train, test = hold_out(train, seed, HELD_OUT, Stream.SPLIT)
    if not validation:
        train, validation = hold_out(train, seed + 1, HELD_OUT, Stream.SPLIT)
    left_out = set(exclude)
    kept = [question for question in train if question.id not in left_out]
    if len(kept) < len(train):
        notes.append(f"{len(train) - len(kept)} training questions are few-shot examples and were left out")
    return Questions(name, kept[:limit], validation[:limit], test[:limit], tuple(notes))


def hold_out(
    questions: Sequence[Question], seed: int, share: float, stream: int
) -> tuple[list[Question], list[Question]]:
    """Return (kept, held out): a seeded share of the questions, at least one, in the order given."""
    count = max(round(share * len(questions)), 1)
    if len(questions) <= count:
        raise UserError(f"{len(questions)} training questions are too few to hold any out: give more")
    order = np.random.Generator(np.random.PCG64([seed, stream])).permutation(len(questions))
    chosen = set(order[:count].tolist())
    kept = [question for index, question in enumerate(questions) if index not in chosen]
    return kept, [question for index, question in enumerate(questions) if index in chosen]


def _find_splits(name: str, path: str | None, offline: bool) -> dict[str, list[Path]]:
    source = SOURCES[name]
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
        files = sorted({file.with_suffix(""): file for file in files}.values())  # of one stem the last, the best
    found: dict[str, list[Path]] = {split: [] for split in SPLITS}
    for file in files:
        stem = file.stem.lower()
        # `train` first: CommonsenseQA's authors call a file train_rand_split, and a folder may say more.
        split = next((split for split, words in SPLITS.items() if any(word in stem for word in words)), None)
        if split is not None:
            found[split].append(file)
    if not any(found.values()):
        raise UserError(f"{path} holds no file for train, validation or test ({', '.join(SUFFIXES)})")
    return {split: members for split, members in found.items() if members}


def _read_file(path: Path, seen: dict[str, str], unusable: list[str] | None) -> list[tuple[Question, bool]]:
    """Return each question of a file, and whether its label is known; what is wrong goes to `unusable`, if there is."""
    found = []
    rows = read_table(path)
    if not rows:
        raise UserError(f"{path} holds no question")
    reader = _schema(rows[0])
    for row in rows:
        try:
            id, text, passage, options, labels, answer = reader(row.fields)
        except (KeyError, TypeError, AttributeError) as error:
            raise UserError(f"{row.place} is not like the rows before it: {error} is missing or of another type") from (
                error
            )
        id = str(id)
        if id in seen:
            raise UserError(f"{row.place}: id {id} occurs twice (first: {seen[id]}): every id must be its own")
        seen[id] = row.place
        try:
            question = _checked(row.place, id, text, passage, options, labels, answer)
        except UserError as error:
            if unusable is None:
                raise UserError(f"{error}; mend it, or give dataset.skip=true to leave such questions out") from error
            unusable.append(str(error))
            continue
        found.append((question, answer not in (None, "")))
    return found


def _checked(
    place: str, id: str, text: Any, passage: Any, options: Sequence[Any], labels: Sequence[Any], answer: Any
) -> Question:
    if not isinstance(text, str) or not text.strip():
        raise UserError(f"{place}: question {id} has no text")
    texts = tuple(str(option).strip() for option in options)
    if len(texts) < 2:
        raise UserError(f"{place}: question {id} has {len(texts)} option: it needs at least 2")
    if len(texts) > len(LETTERS):
        raise UserError(f"{place}: question {id} has {len(texts)} options: at most {len(LETTERS)} can be named")
    twice = next((one for number, one in enumerate(texts) if one in texts[:number]), None)
    if twice is not None:
        raise UserError(f"{place}: question {id} has the option {twice!r} twice")
    if not all(texts):
        raise UserError(f"{place}: question {id} has an option without text")
    names = [str(label) for label in labels]
    if answer in (None, ""):
        return Question(id, text.strip(), texts, -1, str(passage or "").strip())
    if str(answer) not in names:
        raise UserError(f"{place}: question {id} has the answer {answer!r}, which is none of its options {names}")
    return Question(id, text.strip(), texts, names.index(str(answer)), str(passage or "").strip())


Read = Callable[[Mapping[str, Any]], tuple[Any, Any, Any, Sequence[Any], Sequence[Any], Any]]


def _schema(row: Row) -> Read:
    """Return the reader of a file by the fields of its first row."""
    fields = row.fields
    if {"context", "question", "answers"} <= set(fields):
        return _reclor
    if isinstance(fields.get("question"), Mapping):
        return _authors
    needed = ("id", "question", "choices")
    missing = [name for name in needed if name not in fields]
    if missing:
        raise UserError(
            f"{row.place} lacks {', '.join(missing)}: expected id, question, choices (text and label) and answerKey, "
            f"or ReClor's context, question, answers and label; its fields are: {', '.join(map(str, fields)) or 'none'}"
        )
    return _hub


def _hub(row: Mapping[str, Any]):
    choices = row["choices"]
    return row["id"], row["question"], "", list(choices["text"]), list(choices["label"]), row.get("answerKey")


def _authors(row: Mapping[str, Any]):
    """ARC and CommonsenseQA as their authors publish them."""
    choices = row["question"]["choices"]
    texts, labels = [choice["text"] for choice in choices], [choice["label"] for choice in choices]
    return row["id"], row["question"]["stem"], "", texts, labels, row.get("answerKey")


def _reclor(row: Mapping[str, Any]):
    options = list(row["answers"])
    return row["id_string"], row["question"], row["context"], options, list(range(len(options))), row.get("label")
