"""Preference pairs inside one question: right over wrong (P_z), and more consistent over less (P_z~)."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from rich.console import Console

from jaxalign.data.datasets.questions import Question
from jaxalign.data.order import Stream
from jaxalign.errors import UserError
from jaxalign.reasoning.rationales import Rationale
from jaxalign.reasoning.wording import Wording
from jaxalign.runs.directory import Run, read_records, write_atomic

PAIRS = "pairs.jsonl"

KINDS = ("z", "z_tilde")
NAMES = {"z": "by the answer", "z_tilde": "by follow-ups"}
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
    found: dict[str, list[tuple[str, np.ndarray]]] = {kind: [] for kind in KINDS}
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
    for number, kind in enumerate(KINDS):
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
    random = np.random.Generator(np.random.PCG64([seed, Stream.PAIRS, round, len(KINDS)]))
    return [chosen[place] for place in random.permutation(len(chosen))], report


def round_half_up(value: float) -> int:
    """Return the nearest whole number, .5 upwards."""
    return int(np.floor(value + 0.5))


def write_pairs(
    run: Run,
    console: Console,
    wording: Wording,
    questions: Mapping[str, Question],
    rationales: Mapping[str, Sequence[Rationale]],
    *,
    rounds: int,
    count: int,
    mixing: float,
    resample: bool,
    seed: int,
) -> dict[str, Any]:
    """Draw every round's pairs into pairs.jsonl, and return the stage's summary; a shortage is printed.

    A line says which rationales it means by their places, and holds prompt, chosen and rejected as texts: the file is
    one for dataset=pairs, too.

    Args:
        run: where to.
        console: what is short is said here.
        wording: of the texts.
        questions: by id.
        rationales: read, by the question's id.
        rounds: how many rounds.
        count: pairs of a round.
        mixing: see `draw`.
        resample: whether each round draws anew.
        seed: see `draw`.

    Raises:
        UserError: there is no pair at all.
    """
    every = pools(rationales)
    sizes = {kind: every.size(kind) for kind in KINDS}
    lines, reports = [], []
    for round in range(1, rounds + 1):
        drawn, report = draw(every, count, mixing, seed, round if resample else 1)
        reports.append(report)
        for one in drawn:
            question, mine = questions[one.question], rationales[one.question]
            better, other = (_answered(wording, question, mine[place]) for place in (one.better, one.other))
            texts = {"prompt": wording.prompt(question), "chosen": better, "rejected": other}
            lines.append({"round": round, **dataclasses.asdict(one), **texts})
    if not lines:
        raise UserError(_no_pairs(sizes, mixing))
    for kind, one in reports[0].items():
        if one["drawn"] < one["wanted"]:
            short = f"{one['there']:,} pairs {NAMES[kind]}, and {one['wanted']:,} were wanted"
            console.print(f"preferences: there are only {short}", highlight=False, soft_wrap=True)
    write_atomic(run.path / PAIRS, "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))
    responses = {(line["question"], line[side]) for line in lines for side in ("better", "other")}
    return {"there": sizes, "rounds": reports, "distinct_responses": len(responses)}


def _answered(wording: Wording, question: Question, rationale: Rationale) -> str:
    assert rationale.prediction is not None  # what was not read is in no pair
    return wording.response(question, rationale.text, rationale.prediction)


def _no_pairs(sizes: Mapping[str, int], mixing: float) -> str:
    if sizes["z"]:
        return (
            f"crest.mixing={mixing:g} asks for pairs by follow-ups, and there is none: no question has two right "
            f"rationales whose follow-ups differ; lower crest.mixing (there are {sizes['z']:,} pairs by the answer), "
            "or sample more (crest.samples)"
        )
    if sizes["z_tilde"]:
        return (
            f"crest.mixing={mixing:g} asks for pairs by the answer, and there is none: every question's rationales are "
            f"all right or all wrong; raise crest.mixing (there are {sizes['z_tilde']:,} pairs by follow-ups), or "
            "sample more (crest.samples)"
        )
    return (
        "there is no pair to learn from: every question's rationales are all right or all wrong, and their follow-ups "
        "agree; sample more (crest.samples), or give harder or easier questions"
    )


def read_pairs(run: Run, rounds: int) -> list[list[Choice]]:
    """Return each round's pairs from pairs.jsonl."""
    fields = [field.name for field in dataclasses.fields(Choice)]
    found: list[list[Choice]] = [[] for _ in range(rounds)]
    for record in read_records(run.path / PAIRS):
        found[record["round"] - 1].append(Choice(**{name: record[name] for name in fields}))
    return found
