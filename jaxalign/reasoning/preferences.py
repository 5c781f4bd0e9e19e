"""Preference pairs of rationales of one question: right over wrong (P_z), more over less consistent (P_z~)."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jaxalign.data.order import Stream
from jaxalign.reasoning.rationales import Rationale

PAIR_KINDS = ("z", "z_tilde")
PAIR_KIND_NAMES = {"z": "by the answer", "z_tilde": "by follow-ups"}
"""The names of the kinds in messages and reports."""


@dataclasses.dataclass(frozen=True)
class RationalePair:
    """The question's id, its better and its worse rationale (indices in the question's list), and the kind of pair."""

    question: str
    better: int
    worse: int
    kind: str

    def record(self) -> dict[str, Any]:
        """Return the pair as a part of a record of pairs.jsonl."""
        return {"question": self.question, "better": self.better, "other": self.worse, "kind": self.kind}

    @classmethod
    def of_record(cls, record: Mapping[str, Any]) -> "RationalePair":
        """Return the pair of a record of pairs.jsonl."""
        return cls(record["question"], record["better"], record["other"], record["kind"])


@dataclasses.dataclass(frozen=True)
class Pools:
    """All pairs of a data set. `pairs` holds, for each kind, each question with its pairs of indices [n, 2]."""

    pairs: dict[str, list[tuple[str, np.ndarray]]]

    def size(self, kind: str) -> int:
        """Return the number of pairs of one kind."""
        return sum(len(places) for _, places in self.pairs[kind])


def pools(rationales: Mapping[str, Sequence[Rationale]]) -> Pools:
    """Return the pairs of every question: z = 1 over z = 0, and, of two rationales with z = 1, the higher over the
    lower z~.

    Rationales that could not be read are in no pair. Questions are sorted by their id, so their order changes nothing.
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
        better, worse = np.nonzero((levels[:, None] > levels[None, :]) & (levels[None, :] >= 0))
        if len(better):
            places = np.array(right)
            found["z_tilde"].append((question, np.stack([places[better], places[worse]], -1)))
    return Pools(found)


def draw(found: Pools, count: int, mixing: float, seed: int, round: int) -> tuple[list[RationalePair], dict[str, Any]]:
    """Draw `count` pairs for a round without repetition: a share 1 - `mixing` from P_z, and `mixing` from P_z~.

    Returns the pairs in random order, and for each kind how many were wanted, are there, and were drawn. If a kind has
    fewer pairs than wanted, all of them are drawn, and the other kind does not make up for it.
    """
    wanted = {"z_tilde": round_half_up(mixing * count)}
    wanted["z"] = count - wanted["z_tilde"]
    chosen: list[RationalePair] = []
    report = {}
    for number, kind in enumerate(PAIR_KINDS):
        there = found.size(kind)
        random = np.random.Generator(np.random.PCG64([seed, Stream.PAIRS, round, number]))
        drawn = np.sort(random.choice(there, min(wanted[kind], there), replace=False)) if there else np.zeros(0, int)
        starts = np.cumsum([0, *(len(places) for _, places in found.pairs[kind])])
        owners = np.searchsorted(starts, drawn, side="right") - 1
        for index, owner in zip(drawn.tolist(), owners.tolist(), strict=True):
            question, places = found.pairs[kind][owner]
            better, worse = places[index - starts[owner]].tolist()
            chosen.append(RationalePair(question, better, worse, kind))
        report[kind] = {"wanted": wanted[kind], "there": there, "drawn": len(drawn)}
    random = np.random.Generator(np.random.PCG64([seed, Stream.PAIRS, round, len(PAIR_KINDS)]))
    return [chosen[place] for place in random.permutation(len(chosen))], report


def round_half_up(value: float) -> int:
    """Return the nearest whole number; .5 is rounded up."""
    return int(np.floor(value + 0.5))
