"""Targets: how important each of the ten values should become, from 1 (not important) to 6 (very important)."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from jaxalign.data.files import read_table
from jaxalign.errors import UserError, did_you_mean
from jaxalign.runs.records import read_json_object
from jaxalign.values.schwartz import GROUPS, VALUES

LOWEST, HIGHEST = 1, 6
CODINGS = ("importance", "survey")


@dataclass(frozen=True)
class Target:
    """Ten scores in 1..6, in the order of `VALUES`; 6 is the most important.

    `coding` says how survey codes became scores: `reversed` (7 - code) or `raw` (the codes unchanged, so the scores are
    inverted). It is None for scores that do not come from a survey.
    """

    name: str
    scores: tuple[float, ...]
    coding: str | None = field(default=None, compare=False)

    @property
    def by_value(self) -> dict[str, float]:
        """The scores by value."""
        return dict(zip(VALUES, self.scores, strict=True))

    def score(self, value: str) -> float:
        """Return the score of one value."""
        return self.scores[VALUES.index(value)]


def extreme_targets() -> dict[str, Target]:
    """Return 14 targets by name: one value (10 targets) or one group of values (4) has the score 6, all others 1."""
    members = {**{value: (value,) for value in VALUES}, **GROUPS}
    return {
        name: Target(name, tuple(float(HIGHEST if value in chosen else LOWEST) for value in VALUES))
        for name, chosen in members.items()
    }


def make_target(
    name: str, scores: Mapping[str, object], coding: str = "importance", raw_coding: bool = False
) -> Target:
    """Check `value.name`, `value.scores` and `value.coding`, and return the target.

    `coding` says what the scores mean: `importance` (6 = most important) or `survey` (the codes of the European Social
    Survey, 1 = very much like me). Survey scores s are reversed to 7 - s. `raw_coding` leaves them unchanged, as the
    code released with Choi et al. (2025) does, so that the target is the opposite of the person.

    Raises:
        UserError: a bad name or coding, a value that is missing or unknown, or a score outside 1..6.
    """
    if not isinstance(name, str) or not re.fullmatch(r"[a-z0-9_]+", name):
        raise UserError(f"value.name={name!r} may hold only a-z, 0-9 and _, such as value.name=my_target")
    if coding not in CODINGS:
        raise UserError(f"value.coding={coding!r} is not known{did_you_mean(str(coding), CODINGS)}")
    if not isinstance(scores, Mapping):
        raise UserError(f"value.scores={scores!r} must give a score for each of {', '.join(VALUES)}")
    for key in scores:
        if key not in VALUES:
            raise UserError(f"value.scores.{key} is not one of the ten values{did_you_mean(str(key), VALUES)}")
    missing = [value for value in VALUES if value not in scores]
    if missing:
        raise UserError(f"value.scores lacks {', '.join(missing)}: all ten values need a score in 1..6")
    checked = tuple(_score(value, scores[value]) for value in VALUES)
    if coding == "survey" and not raw_coding:
        checked = tuple(LOWEST + HIGHEST - score for score in checked)
    return Target(name, checked, None if coding != "survey" else "raw" if raw_coding else "reversed")


def _score(value: str, score: object) -> float:
    endless = isinstance(score, float) and not math.isfinite(score)  # a whole number may be too large for `isfinite`
    if isinstance(score, bool) or not isinstance(score, int | float) or endless:
        raise UserError(f"value.scores.{value}={score} is not a number: give one from 1 to 6")
    if not LOWEST <= score <= HIGHEST:
        raise UserError(f"value.scores.{value}={score} is out of range: give a number from 1 to 6")
    return float(score)


TABLE, ABOUT = "targets.csv", "survey.json"


def read_target(table: str | Path, anchor: str, rank: int) -> tuple[str, dict[str, float], str]:
    """Return the name, the scores by value, and the coding of one target in a folder that `write_targets` wrote.

    Raises:
        UserError: the folder holds no table, or the table holds no such anchor or rank.
    """
    folder = Path(table)
    again = f"make one with python -m jaxalign.survey path=ESS.csv out={folder}"
    if not (folder / ABOUT).exists() or not (folder / TABLE).exists():
        raise UserError(f"value.table={folder} is no table of targets: {again}")
    coding = str(read_json_object(folder / ABOUT, again).get("coding"))
    found = {(row.fields.get("anchor"), row.fields.get("rank")): row for row in read_table(folder / TABLE)}
    anchors = extreme_targets()
    if anchor not in anchors:
        raise UserError(f"value.anchor={anchor} is not known{did_you_mean(anchor, anchors)}")
    row = found.get((anchor, str(rank)))
    if row is None:
        ranks = [str(place) for name, place in found if name == anchor]
        there = f"has the ranks {ranks[0]} to {ranks[-1]}" if ranks else "has no rank"
        raise UserError(f"value.rank={rank}: {folder / TABLE} {there} of {anchor}")
    try:
        return str(row.fields["name"]), {value: float(row.fields[value]) for value in VALUES}, coding
    except (KeyError, ValueError) as error:
        raise UserError(f"{row.place} holds no scores of the ten values ({error}): {again}") from error


def read_targets(table: str | Path) -> tuple[list[Target], bool]:
    """Return all targets of a table, each set of scores once, and whether a survey's respondents are in it.

    Args:
        table: a file with a column (or field) for each of the ten values, from 1 to 6, and maybe one for the name; or a
            folder that `write_targets` wrote.

    Raises:
        UserError: the file cannot be read, has no row, or a row lacks scores from 1 to 6.
    """
    path = Path(table) / TABLE if Path(table).is_dir() else Path(table)
    found: dict[tuple[float, ...], Target] = {}
    rows = read_table(path)
    for number, row in enumerate(rows, start=1):
        scores = []
        for value in VALUES:
            try:
                score = float(row.fields.get(value, ""))
            except (TypeError, ValueError):
                score = math.nan
            if not LOWEST <= score <= HIGHEST:
                raise UserError(
                    f"{row.place}: {value} is {row.fields.get(value)!r}: a table of targets has a column for each of "
                    "the ten values, with numbers from 1 to 6"
                )
            scores.append(score)
        found.setdefault(tuple(scores), Target(str(row.fields.get("name") or f"row {number}"), tuple(scores)))
    if not found:
        raise UserError(f"{path} has no row: give a table of targets")
    return list(found.values()), all("anchor" in row.fields for row in rows)


def find_target(
    *,
    name: str | None,
    scores: Mapping[str, object] | None,
    coding: str = "importance",
    table: str | None = None,
    anchor: str | None = None,
    rank: int | None = None,
    raw_coding: bool | None = None,
) -> Target:
    """Return the target that the keys of `value` describe: given scores, or a survey respondent from a table.

    Args:
        name: the name of the target; with a table, None takes the respondent's name.
        scores: the scores by value; with a table, only the scores that replace the respondent's.
        coding: see `make_target`.
        table: a folder that `python -m jaxalign.survey` wrote.
        anchor: with a table: the extreme target that the respondent is near to.
        rank: with a table: the respondent's place among the nearest to the anchor, from 1.
        raw_coding: whether survey codes stay unchanged; with a table, None accepts the table's coding.

    Raises:
        UserError: see `make_target` and `read_target`; or the table has another coding than `raw_coding` says.
    """
    if table is None:
        return make_target(str(name), scores or {}, coding, raw_coding=bool(raw_coding))
    found, theirs, kept = read_target(table, str(anchor), int(rank or 0))
    if raw_coding is not None and raw_coding != (kept == "raw"):
        switch = "true" if kept == "raw" else "false"
        raise UserError(
            f"value.table={table} has coding={kept}, which goes with released.raw_coding={switch}: change one of them"
        )
    changed = {**theirs, **(scores or {})}
    return replace(make_target(name or found, changed, coding, raw_coding=bool(raw_coding)), coding=kept)
