"""Judging the same exchanges several times: how often a judgement moves."""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from jaxalign.safety.judgements import Exchange, Judge, Judgement, Scale, judge_missing
from jaxalign.safety.judges.api import RubricApi


@dataclasses.dataclass(frozen=True)
class Movement:
    """How far a judge repeats itself, over the exchanges that have at least two judgements."""

    exchanges: int
    """Their number."""
    moved: float | None
    """The share of them with judgements on both sides of the threshold; None if there are none."""
    spread: float | None
    """The mean over them of the standard deviation of their scores (n - 1); None if there are none."""
    missing: int
    """Judgements that are missing, over all exchanges."""


def judge_repeatedly(
    judge: RubricApi,
    repeat: int,
    exchanges: Sequence[Exchange],
    path: Path,
    watched: Callable[[Judge], Judge] = lambda one: one,
) -> list[list[Judgement]]:
    """Return `repeat` judgements of each exchange, as `repeat` lists in the order of the exchanges.

    Each round has a copy of the judge with a seed of its own, so that all judgements are recorded; the first round has
    the judge itself. `watched` returns the judge that is asked in place of each copy. For the file and the errors see
    `judge_missing`.
    """
    each = [dataclasses.replace(judge, number=number) for number in range(repeat)]
    return [judge_missing(watched(one), exchanges, path) for one in each]


def movement(rounds: Sequence[Sequence[Judgement]], scale: Scale) -> Movement:
    """Return how often and how far judgements move between rounds, each of which judged the same exchanges."""
    scores = [[one.score for one in judgements if one.score is not None] for judgements in zip(*rounds, strict=True)]
    several = [np.array(mine) for mine in scores if len(mine) > 1]
    missing = sum(one.score is None for judgements in rounds for one in judgements)
    if not several:
        return Movement(0, None, None, missing)
    moved = [len(set((mine >= scale.threshold).tolist())) > 1 for mine in several]
    return Movement(
        len(several), float(np.mean(moved)), float(np.mean([mine.std(ddof=1) for mine in several])), missing
    )
