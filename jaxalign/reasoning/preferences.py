"""Preference pairs inside one question: right over wrong (P_z), and more consistent over less (P_z~)."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jaxalign.data.order import Stream
from jaxalign.reasoning.rationales import Rationale

PAIR_KINDS = ("z", "z_tilde")
PAIR_KIND_NAMES = {"z": "by the answer", "z_tilde": "by follow-ups"}
"""What the kinds are called."""


@dataclasses.dataclass(frozen=True)
class Choice:
    """One pair: the question, the preferred rationale and the other (by place in the question's list), and why."""

    question: str
    better: int
    other: int
    kind: str


@dataclasses.dataclass(frozen=True)
class Pools:
    """All pairs of a data set, counted but not written out: for each kind the questions with their [n, 2] places."""

    pairs: dict[str, list[tuple[str, np.ndarray]]]

    def size(self, kind: str) -> int:
        """Return the number of pairs of a kind."""
        return sum(len(places) for _, places in self.pairs[kind])


def pools(rationales: Mapping[str, Sequence[Rationale]]) -> Pools:
    """Return the pairs of every question: each z = 1 over each z = 0, and of two z = 1 the one with the higher z~.

    What was not read is in no pair. Questions go by their id, so the order in which they come changes nothing.
    """
    found: dict[str, list[tuple[str, np.ndarray]]] = {kind: [] for kind in PAIR_KINDS}
    for question in sorted(rationales):
        mine = rationales[question]
        right = [place for place, one in enumerate(mine) if one.right]
        wrong = [place for place, one in enumerate(mine) if one.right is False]
        if right and wrong:
            grid = np.stack(np.meshgrid(right, wrong, indexing="ij"), -1).reshape(-1, 2)
            found["z"].append((question, grid))
        levels = np.array([-1 if mine[place].agreed is None else mine[place].agreed for place in right], np.int64)
        better, other = np.nonzero((levels[:, None] > levels[None, :]) & (levels[None, :] >= 0))
        if len(better):
            places = np.array(right)
            found["z_tilde"].append((question, np.stack([places[better], places[other]], -1)))
    return Pools(found)


def draw(found: Pools, count: int, mixing: float, seed: int, round: int) -> tuple[list[Choice], dict[str, Any]]:
    """Draw a round's pairs without repetition: a share 1 - `mixing` of P_z and `mixing` of P_z~, by count.

    Returns the pairs, shuffled, and what was wanted, there and drawn of each kind. A kind that is short gives all it
    has, and the other does not fill its place, so that the mixture stays what was asked for where it can be.
    """
    wanted = {"z_tilde": round_half_up(mixing * count)}
    wanted["z"] = count - wanted["z_tilde"]
    chosen: list[Choice] = []
    report = {}
    for number, kind in enumerate(PAIR_KINDS):
        there = found.size(kind)
        random = np.random.Generator(np.random.PCG64([seed, Stream.PAIRS, round, number]))
        drawn = np.sort(random.choice(there, min(wanted[kind], there), replace=False)) if there else np.zeros(0, int)
        starts = np.cumsum([0, *(len(places) for _, places in found.pairs[kind])])
        owners = np.searchsorted(starts, drawn, side="right") - 1
        for index, owner in zip(drawn.tolist(), owners.tolist(), strict=True):
            question, places = found.pairs[kind][owner]
            better, other = places[index - starts[owner]].tolist()
            chosen.append(Choice(question, better, other, kind))
        report[kind] = {"wanted": wanted[kind], "there": there, "drawn": len(drawn)}
    random = np.random.Generator(np.random.PCG64([seed, Stream.PAIRS, round, len(PAIR_KINDS)]))
    return [chosen[place] for place in random.permutation(len(chosen))], report


def round_half_up(value: float) -> int:
    """Return the nearest whole number, .5 upwards."""
    return int(np.floor(value + 0.5))
