"""Touché23-ValueEval: arguments labelled with the human values behind them (Mirzakhmedova et al., 2023).

Two forms are read. The published form (Zenodo) has the files `arguments-SPLIT.tsv` and `labels-SPLIT.tsv`; the second
has one column for each of the 20 categories. The form on the hub, at the last revision before the loading script, has
one file for each split, with a column `Labels` that holds a list of 20 flags. A tab always separates two fields,
because neither form quotes fields as the CSV rules say.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from jaxalign.data.account import Log, account, beyond, count, file_names, unsaid
from jaxalign.data.examples import take
from jaxalign.data.files import note_id, read_tsv
from jaxalign.data.hub import download
from jaxalign.errors import UserError
from jaxalign.values.schwartz import LEVEL2, VALUES

REPOSITORY = "webis/Touche23-ValueEval"
REVISION = "c56a063fda5467e577a5342e536473e2ff2b1dc9"  # main has only a loading script, which must not run
TOUCHE_SPLITS = ("training", "validation", "validation-zhihu")
HUB_FILES = tuple(f"data/{split.replace('-', '')}-00000-of-00001.tsv" for split in TOUCHE_SPLITS)
HUB_ORDER = (
    *("Self-direction: thought", "Self-direction: action", "Stimulation", "Hedonism", "Achievement"),
    *(
        "Power: dominance",
        "Power: resources",
        "Face",
        "Security: personal",
        "Security: societal",
        "Tradition",
    ),
    *("Conformity: rules", "Conformity: interpersonal", "Humility", "Benevolence: caring"),
    *(
        "Benevolence: dependability",
        "Universalism: concern",
        "Universalism: nature",
        "Universalism: tolerance",
    ),
    "Universalism: objectivity",
)
STANCES = {"in favor of": "in favor of", "in favour of": "in favor of", "against": "against"}
ID, TEXT_COLUMNS = "Argument ID", ("Conclusion", "Stance", "Premise")


@dataclass(frozen=True)
class Argument:
    """A premise for or against a conclusion, and the values behind it (some of `VALUES`, in its order)."""

    id: str
    conclusion: str
    stance: str
    premise: str
    values: tuple[str, ...]

    @property
    def agrees(self) -> bool:
        """Whether the argument is in favor of its conclusion."""
        return self.stance == "in favor of"


def load_arguments(
    path: str | None, *, offline: bool = False, limit: int | None = None, log: Log = unsaid
) -> list[Argument]:
    """Return the arguments with at least one of the ten values, from a folder of TSV files or, for None, from the hub.

    Of a folder, all splits are used except test splits, whatever their names. An argument has a value if it has any
    level-2 category of it.

    Args:
        path: the folder; None for the hub.
        offline: whether the network may not be used.
        limit: the largest number of arguments; None for all.
        log: called with the line that says which files were read, and what is left aside.

    Raises:
        UserError: the folder lacks a file or has no split to train on, a column is missing, the ids of arguments and
            labels do not match, a label or stance is not allowed, an id is repeated, there are fewer than two
            arguments, or the data set cannot be fetched.
    """
    aside: list[str] = []
    if path is None:
        source = REPOSITORY
        files = download(REPOSITORY, REVISION, HUB_FILES, offline=offline)
        read = {file: list(_joint(file)) for file in files}
    else:
        source = f"dataset.path={path}"
        pairs, aside = _pairs(Path(path))
        read = {texts: list(_published(texts, labels)) for texts, labels in pairs}
    arguments = [argument for rows in read.values() for argument in rows]
    _refuse_twice((argument.id for argument in arguments), source)
    with_value = [argument for argument in arguments if argument.values]
    if len(with_value) < len(arguments):
        aside.insert(0, f"{len(arguments) - len(with_value):,} without any of the ten values")
    used = take(with_value, limit, source)
    rows = {file: len(found) for file, found in read.items()}
    log(account("data", rows, count(len(used), "argument"), [*aside, beyond(len(with_value), limit)]))
    return used


def tidy(text: str) -> str:
    """Return a sentence on one line, without its full stop, because the prompt templates add one."""
    return " ".join(text.split()).rstrip(". ")


def read_stance(text: str, place: str) -> str:
    """Return 'in favor of' or 'against' (18 published rows spell it 'favour'); raises UserError otherwise."""
    stance = STANCES.get(text.strip().lower())
    if stance is None:
        raise UserError(f"{place} has the stance {text!r}: it must be 'in favor of' or 'against'")
    return stance


def _pairs(folder: Path) -> tuple[list[tuple[Path, Path]], list[str]]:
    """Return the files of each split, arguments and labels, and in words which other TSV files the folder has."""
    expected = "expected arguments-training.tsv and labels-training.tsv, as ValueEval publishes them"
    if not folder.is_dir():
        raise UserError(f"dataset.path={folder} is not a folder: {expected}")
    tables = sorted(file for file in folder.iterdir() if file.suffix.lower() == ".tsv")
    splits = {file.stem.removeprefix("arguments-"): file for file in tables if file.stem.startswith("arguments-")}
    if not splits:
        raise UserError(f"dataset.path={folder} holds no arguments-*.tsv: {expected}")
    used = {name: splits[name] for name in sorted(splits) if not name.startswith("test")}
    if not used:
        raise UserError(f"dataset.path={folder} holds only the test split, which is never trained on: {expected}")
    pairs = [(file, folder / f"labels-{name}.tsv") for name, file in used.items()]
    read = {file for pair in pairs for file in pair}
    others = file_names(file for file in tables if file not in read)
    if all(name.startswith("validation") for name in used):
        there = f"; beside it stands {', '.join(others)}" if others else ""
        raise UserError(
            f"dataset.path={folder} holds only validation to train on ({', '.join(used)})"
            f"{there}: rename the files of the split to train on to arguments-training.tsv and labels-training.tsv"
        )
    for texts, labels in pairs:
        if not labels.is_file():
            raise UserError(f"{texts} has no {labels.name} beside it: {expected}")
    return pairs, [f"{name} (a test split)" if "-test" in name else name for name in others]


def _published(texts: Path, labels: Path) -> Iterator[Argument]:
    flags, places = {}, {}
    for place, row in read_tsv(labels, (ID, *LEVEL2)):
        note_id(places, row[ID], place)
        flags[row[ID]] = _values({column: row[column] for column in LEVEL2}, place)
    rows = read_tsv(texts, (ID, *TEXT_COLUMNS))
    ids = {row[ID] for _, row in rows}
    unlabelled, unknown = sorted(ids - flags.keys()), sorted(flags.keys() - ids)
    if unlabelled or unknown:
        raise UserError(
            f"{labels} does not match {texts.name}: {len(unlabelled)} arguments have no labels and "
            f"{len(unknown)} labels no argument, such as {(unlabelled or unknown)[0]}: take both from one release"
        )
    return (_argument(row, flags[row[ID]], place) for place, row in rows)


def _joint(path: Path) -> Iterator[Argument]:
    for place, row in read_tsv(path, (ID, *TEXT_COLUMNS, "Labels")):
        row = {name: _unquoted(field) for name, field in row.items()}
        flags = re.findall(r"[^\[\],\s]+", row["Labels"])
        if len(flags) != len(HUB_ORDER):
            raise UserError(f"{place} has {len(flags)} labels: expected {len(HUB_ORDER)}")
        yield _argument(row, _values(dict(zip(HUB_ORDER, flags, strict=True)), place), place)


def _argument(row: dict[str, str], values: tuple[str, ...], place: str) -> Argument:
    conclusion, premise = tidy(row["Conclusion"]), tidy(row["Premise"])
    if not conclusion or not premise:
        raise UserError(f"{place} has an empty conclusion or premise")
    return Argument(row[ID], conclusion, read_stance(row["Stance"], place), premise, values)


def _values(flags: dict[str, str], place: str) -> tuple[str, ...]:
    for column, flag in flags.items():
        if flag not in ("0", "1"):
            raise UserError(f"{place} has the label {flag!r} in column {column!r}: it must be 0 or 1")
    held = {LEVEL2[column] for column, flag in flags.items() if flag == "1" and column in LEVEL2}
    return tuple(value for value in VALUES if value in held)


def _unquoted(field: str) -> str:
    # The hub's files were written by a CSV writer, which puts quotation marks around a field that holds one.
    quoted = re.fullmatch(r'"((?:[^"]|"")*)"', field)
    return quoted[1].replace('""', '"') if quoted else field


def _refuse_twice(ids: Iterator[str], source: str) -> None:
    seen: set[str] = set()
    for id in ids:
        if id in seen:
            raise UserError(f"{source} has the argument {id} twice: every argument needs an id of its own")
        seen.add(id)
