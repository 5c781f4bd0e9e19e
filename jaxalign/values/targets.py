"""Targets: how important each of the ten values should become, from 1 (not at all) to 6 (very)."""

import csv
import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from jaxalign.errors import UserError, did_you_mean
from jaxalign.values.schwartz import GROUPS, VALUES

LOWEST, HIGHEST = 1, 6
CODINGS = ("importance", "survey")


@dataclass(frozen=True)
class Target:
    """Ten scores in 1..6, in the order of `VALUES`; 6 is the most important.

    `coding` is that of the survey which the scores are from: `raw` (its codes as they are, so inverted people) or
    `reversed`; None for scores that are from no survey.
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
    """Return the 14 targets with one value (10) or one group of values (4) at 6, and the rest at 1."""
    members = {**{value: (value,) for value in VALUES}, **GROUPS}
    return {
        name: Target(name, tuple(float(HIGHEST if value in chosen else LOWEST) for value in VALUES))
        for name, chosen in members.items()
    }


def make_target(
    name: str, scores: Mapping[str, object], coding: str = "importance", raw_coding: bool = False
) -> Target:
    """Check `value.name`, `value.scores` and `value.coding`, and return the target.

    `coding` says which way the scores run: `importance`, 6 = most important, or `survey`, as the European
    Social Survey codes its answers, 1 = very much like me; those are turned round (7 - s). `raw_coding`
    leaves them as they are, which is what the code released with Choi et al. (2025) does, and trains inverted
    people.

    Raises UserError for a bad name or coding, a value that is missing or unknown, and a score outside 1..6.
    """
    if not isinstance(name, str) or not re.fullmatch(r"[a-z0-9_]+", name):
        raise UserError(f"value.name={name!r} must be of a-z, 0-9 and _, such as value.name=my_target")
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
    if isinstance(score, bool) or not isinstance(score, int | float) or not math.isfinite(score):
        raise UserError(f"value.scores.{value}={score} is not a number: give one from 1 to 6")
    if not LOWEST <= score <= HIGHEST:
        raise UserError(f"value.scores.{value}={score} is out of range: give a number from 1 to 6")
    return float(score)


TABLE, ABOUT = "targets.csv", "survey.json"


def read_target(table: str | Path, anchor: str, rank: int) -> tuple[str, dict[str, float], str]:
    """Return name, scores by value, and coding of one target that `write_targets` wrote.

    Raises:
        UserError: there is no such table, anchor or rank.
    """
    folder = Path(table)
    try:
        about = json.loads((folder / ABOUT).read_text(encoding="utf-8"))
        with (folder / TABLE).open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        coding = str(about["coding"])
        found = {(row["anchor"], int(row["rank"])): row for row in rows}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"value.table={folder} is no table of targets: make one with python -m jaxalign.survey "
            f"path=ESS.csv out={folder}"
        ) from error
    anchors = extreme_targets()
    if anchor not in anchors:
        raise UserError(f"value.anchor={anchor} is not known{did_you_mean(anchor, anchors)}")
    if (anchor, rank) not in found:
        ranks = [place for name, place in found if name == anchor]
        raise UserError(f"value.rank={rank}: {folder} has the ranks {min(ranks)} to {max(ranks)} of {anchor}")
    row = found[anchor, rank]
    return row["name"], {value: float(row[value]) for value in VALUES}, coding


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
    """Return the target that the keys of `value` describe: the scores given, or those of a survey's respondent.

    Args:
        name: the target's; None with a table: that of the respondent.
        scores: by value; with a table only those that are to differ from the respondent's.
        coding: see `make_target`.
        table: a folder that `python -m jaxalign.survey` wrote.
        anchor: with a table: the extreme target that the respondent is near to.
        rank: with a table: how near, from 1.
        raw_coding: whether survey codes are to be taken as they are; None takes a table's word for it.

    Raises:
        UserError: see `make_target` and `read_target`; the table's coding is not the one asked for.
    """
    if table is None:
        return make_target(str(name), scores or {}, coding, raw_coding=bool(raw_coding))
    found, theirs, kept = read_target(table, str(anchor), int(rank or 0))
    if raw_coding is not None and raw_coding != (kept == "raw"):
        switch = "true" if kept == "raw" else "false"
        raise UserError(
            f"value.table={table} has coding={kept}, which goes with released.raw_coding={switch}: "
            "change the one or the other"
        )
    changed = {**theirs, **(scores or {})}
    return replace(make_target(name or found, changed, coding, raw_coding=bool(raw_coding)), coding=kept)
