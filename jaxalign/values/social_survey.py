"""Realistic targets: the respondents of a survey who are nearest to each extreme target.

Respondents of the European Social Survey answer 21 items, each of which belongs to one value (Choi et al., 2025). The
survey's licence does not let this project ship the data, so the targets are made from the user's own download. See
conf/survey.yaml.
"""

import csv
import dataclasses
import io
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from jaxalign.data.files import csv_records
from jaxalign.errors import UserError
from jaxalign.runs.reading import not_a_file, read_bytes
from jaxalign.runs.records import entries, file_hash, named_errors, write_atomic
from jaxalign.values.schwartz import VALUES
from jaxalign.values.targets import ABOUT, HIGHEST, LOWEST, TABLE, extreme_targets

ITEMS: dict[str, tuple[str, ...]] = {
    "achievement": ("ipshabta", "ipsucesa"),
    "benevolence": ("iphlppla", "iplylfra"),
    "conformity": ("ipfrulea", "ipbhprpa"),
    "hedonism": ("ipgdtima", "impfuna"),
    "power": ("impricha", "iprspota"),
    "security": ("impsafea", "ipstrgva"),
    "self_direction": ("ipcrtiva", "impfreea"),
    "stimulation": ("impdiffa", "ipadvnta"),
    "tradition": ("ipmodsta", "imptrada"),
    "universalism": ("ipeqopta", "ipudrsta", "impenva"),
}
"""Value -> the names of its items in newer rounds of the survey; older rounds leave out the last letter."""

ALL_ITEMS = tuple(item for value in VALUES for item in ITEMS[value])
BLANKS = ("", ".", "na", "nan")


@dataclasses.dataclass(frozen=True)
class Respondents:
    """The respondents who answered every item and differ in their mean answers.

    `lines` [n] holds their line numbers in the file, and `means` [n, 10] their mean answer for each of `VALUES` in the
    survey's coding (1 = "very much like me"). `rows` is the number of all respondents in the file. `missing` counts
    dropped respondents by the first item that they did not answer, and `duplicates` those who were dropped because an
    earlier respondent has the same ten means.
    """

    lines: np.ndarray
    means: np.ndarray
    rows: int
    missing: Mapping[str, int]
    duplicates: int


def read_respondents(path: str | Path, separator: str | None, missing_codes: Sequence[int]) -> Respondents:
    """Read a survey file.

    Args:
        path: a CSV file with a header, in UTF-8 or Latin-1. Other columns than those of the items are ignored. A column
            may have either name of an item, in upper or lower case. If the file has both columns, the newer name
            counts; where that has no answer, the older one does.
        separator: the character between columns; None takes the comma, semicolon or tab that the header holds most.
        missing_codes: codes that mean no answer. A blank, a full stop, "na" and "nan" always mean no answer.

    Raises:
        UserError: there is no such file; item columns are missing; a code is neither an answer (1..6) nor a missing
            code (with line and column); a quotation mark is not closed (with line); nobody answered every item.
    """
    path = Path(path)
    columns, lines = _columns(path, separator)
    known = {float(code) for code in missing_codes}
    kept: dict[tuple[float, ...], int] = {}
    missing: Counter[str] = Counter()
    rows = duplicates = 0
    for number, cells in lines:
        rows += 1
        answers: dict[str, float] = {}
        for item in ALL_ITEMS:
            answer = _answer(path, number, cells, columns[item], known)
            if answer is None:
                missing[item] += 1
                break
            answers[item] = answer
        else:
            means = tuple(sum(answers[item] for item in ITEMS[v]) / len(ITEMS[v]) for v in VALUES)
            duplicates += means in kept
            kept.setdefault(means, number)
    if not kept:
        raise UserError(
            f"{path}: none of the {rows} respondents answered all 21 items, so there is no target; "
            f"is this the right file, and are its missing codes {list(missing_codes)}?"
        )
    return Respondents(np.array(list(kept.values())), np.array(list(kept)), rows, dict(missing), duplicates)


def _columns(
    path: Path, separator: str | None
) -> tuple[dict[str, list[tuple[str, int]]], Iterator[tuple[int, list[str]]]]:
    """Return the columns of each item as (name, index), and the numbered records after the header."""
    if why := not_a_file(path):
        raise UserError(f"path={path} is not a file ({why}): give the survey's data as CSV")
    data = read_bytes(path)
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = data.decode("latin-1")
    header = text.split("\n", 1)[0]
    mark = separator or max(",;\t", key=header.count)
    if "\0" in text:
        raise UserError(f"{path} holds a NUL, so it is not text: save it as CSV in UTF-8")
    lines = ((number, cells) for number, cells in csv_records(path, text, mark) if any(map(str.strip, cells)))
    _, heads = next(lines, (1, []))
    names = [name.strip().lower() for name in heads]
    columns = {
        item: [(name, names.index(name)) for name in (item, item.removesuffix("a")) if name in names]
        for item in ALL_ITEMS
    }
    absent = [item for item, found in columns.items() if not found]
    if absent:
        raise UserError(
            f"{path} lacks the columns {', '.join(absent)} (with and without the last a); give a file with "
            f"all 21 items of the human values scale{'' if len(names) > 1 else ', or its separator=...'}"
        )
    twice = [name for item in ALL_ITEMS for name, _ in columns[item] if names.count(name) > 1]
    if twice:
        raise UserError(f"{path} has the column {twice[0]} twice: leave one of them out")
    return columns, lines


def _answer(
    path: Path, line: int, cells: Sequence[str], columns: Sequence[tuple[str, int]], known: set[float]
) -> float | None:
    """Return an answer 1..6, or None where the respondent gave none."""
    for name, place in columns:
        text = cells[place].strip() if place < len(cells) else ""
        if text.lower() in BLANKS:
            continue
        try:
            code = float(text)
        except ValueError:
            code = float("nan")
        if code in known:
            continue
        if not (LOWEST <= code <= HIGHEST and code.is_integer()):
            raise UserError(
                f"{path} line {line}: {name}={text} is neither an answer ({LOWEST} to {HIGHEST}) nor a missing code: "
                "add it to missing=[...] if it means that there is no answer"
            )
        return code
    return None


def divergence(profiles: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Return the Jensen-Shannon divergence between each profile and a target, float64 [n], in nats.

    The scores of `profiles` [n, 10] and `target` [10] must be above 0; each profile is scaled to sum 1. If two profiles
    of whole numbers differ only in the order of scores at equal target scores, their divergences are exactly equal.

    >>> float(divergence(np.ones((1, 10)), np.ones(10))[0])
    0.0
    """
    p, q = profiles / profiles.sum(1, keepdims=True), target / target.sum()
    middle = (p + q) / 2
    terms = p * np.log(p / middle) + q * np.log(q / middle)
    return np.sort(terms, axis=1).sum(1) / 2  # sorted, because the order of the terms changes the last bits of a sum


@dataclasses.dataclass(frozen=True)
class Neighbour:
    """A respondent who is near to the extreme target `anchor`; `rank` 1 is the nearest.

    `line` is the line of the survey file, `scores` are in the order of `VALUES`, and `raw` says that they are the
    survey's codes, not reversed.
    """

    anchor: str
    rank: int
    line: int
    divergence: float
    scores: tuple[float, ...]
    raw: bool = False

    @property
    def name(self) -> str:
        """The name of the target, such as power_close_3. Raw scores add _raw, so that nobody mixes them up."""
        return f"{self.anchor}_close_{self.rank}" + ("_raw" if self.raw else "")


def nearest(respondents: Respondents, coding: str, neighbours: int) -> list[Neighbour]:
    """Return the `neighbours` nearest respondents of each of the 14 extreme targets, by divergence.

    Respondents with equal divergence keep the order of the file. With the coding `reversed`, a score is 7 - mean, so
    that 6 is the most important. With `raw` it is the mean itself, as in the code released with the paper, which
    inverts every person.

    Raises:
        UserError: there are fewer respondents than `neighbours`.
    """
    if len(respondents.lines) < neighbours:
        raise UserError(
            f"only {len(respondents.lines)} different respondents answered everything: lower neighbours={neighbours}"
        )
    scores = LOWEST + HIGHEST - respondents.means if coding == "reversed" else respondents.means
    sixths = np.rint(6 * scores)  # the mean of two or three answers, times 6, is a whole number: ties become exact
    found = []
    for anchor, target in extreme_targets().items():
        distances = divergence(sixths, np.array(target.scores))
        for rank, row in enumerate(np.argsort(distances, kind="stable")[:neighbours], start=1):
            person = tuple(float(score) for score in scores[row])
            line = int(respondents.lines[row])
            found.append(Neighbour(anchor, rank, line, float(distances[row]), person, coding == "raw"))
    return found


def check_targets_folder(folder: Path) -> None:
    """Raise UserError if the folder for the targets holds other files, or cannot be one."""
    with named_errors(folder, "use", "give another out"):
        if set(entries(folder)) - {TABLE, ABOUT}:
            raise UserError(f"out={folder} holds other files: give another out")


def write_targets(
    folder: str | Path, targets: Sequence[Neighbour], respondents: Respondents, source: Path, coding: str
) -> None:
    """Write targets.csv, and then survey.json, which says how the targets were made.

    A folder without survey.json is not accepted as a table of targets.

    Raises:
        UserError: the folder holds other files, or cannot be written.
    """
    folder = Path(folder)
    check_targets_folder(folder)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["name", "anchor", "rank", "line", "divergence", *VALUES])
    for one in targets:
        writer.writerow([one.name, one.anchor, one.rank, one.line, one.divergence, *one.scores])
    about = {
        "coding": coding,
        "source": source.name,
        "sha256": file_hash(source),
        "rows": respondents.rows,
        "dropped_without_answer": sum(respondents.missing.values()),
        "first_item_without_answer": dict(respondents.missing),
        "dropped_as_duplicates": respondents.duplicates,
        "kept": len(respondents.lines),
        "neighbours": max(one.rank for one in targets),
    }
    hint = "free space or give another out"
    try:
        (folder / ABOUT).unlink(missing_ok=True)  # if this process is killed, an old file must not describe a new table
    except OSError as error:
        raise UserError(f"cannot replace {folder / ABOUT}: {error.strerror}; give another out") from error
    write_atomic(folder / TABLE, text.getvalue(), hint)
    write_atomic(folder / ABOUT, json.dumps(about, indent=2) + "\n", hint)
