"""The preferences stage: pairs for every round."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console

from jaxalign.data.datasets.questions import Question
from jaxalign.errors import UserError
from jaxalign.reasoning.preferences import PAIR_KIND_NAMES, PAIR_KINDS, Choice, draw, pools
from jaxalign.reasoning.rationales import Rationale
from jaxalign.reasoning.wording import Wording
from jaxalign.runs.directory import Run
from jaxalign.runs.records import read_records, write_atomic

PAIRS = "pairs.jsonl"


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
    sizes = {kind: every.size(kind) for kind in PAIR_KINDS}
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
            short = f"{one['there']:,} pairs {PAIR_KIND_NAMES[kind]}, and {one['wanted']:,} were wanted"
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
