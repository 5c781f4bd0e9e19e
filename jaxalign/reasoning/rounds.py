"""Rounds of DPO: each measured from the adapter that the round before ended with; the best on validation counts."""

import dataclasses
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jaxalign.config import DpoConfig
from jaxalign.data.datasets.questions import Question
from jaxalign.inference.reference import read_reference
from jaxalign.models.lora import Adapter
from jaxalign.progress import Progress
from jaxalign.reasoning.examination import accuracy_of
from jaxalign.reasoning.learner import Learner, Point
from jaxalign.reasoning.preferences import Choice
from jaxalign.reasoning.rationales import Rationale
from jaxalign.runs import Run
from jaxalign.training.preference import Pair, PreferenceStage, Responses


def learn_rounds(
    learner: Learner,
    run: Run,
    start: Adapter,
    data: Responses,
    rounds: Sequence[Sequence[Pair]],
    validation: Sequence[Question],
    dpo: DpoConfig,
) -> dict[str, Any]:
    """Learn each round's pairs, keep its adapter, and the best as the run's; return the stage's summary."""
    adapter = start
    points: list[Point] = []
    summaries: list[dict[str, Any]] = []
    accuracy: list[float] = []
    for number, pairs in enumerate(rounds, start=1):
        name, folder = f"round {number}", run.path / "rounds" / str(number)
        used = sorted({response for pair in pairs for response in pair})
        since = time.perf_counter()
        with Progress(learner.console) as progress:
            reference = read_reference(
                learner.base.scorer(adapter, learner.scale),
                data,
                used,
                run.path / "reference.jsonl",
                model=learner.base_identity,
                progress=progress.counter(f"{name}: reference"),
            )
        seconds = time.perf_counter() - since
        stage = PreferenceStage(
            f"round-{number}",
            dataclasses.replace(data, reference=reference),
            list(pairs),
            objective=dpo.loss,
            grouped=dpo.batching == "grouped",
        )
        settings = learner.settings(
            epochs=1.0,
            batch_size=dpo.batch_size,
            learning_rate=dpo.learning_rate,
            schedule=dpo.schedule,
            warmup_steps=dpo.warmup_steps,
            dropout=0.0,
        )
        adapter, summary = learner.fit(run, stage, settings, adapter, summaries, prefix=number)
        summaries.append({**summary, "reference_seconds": seconds})
        learner.write(folder, adapter)
        points.append(learner.point(name, folder))
        (tested,) = learner.ask(run, points[-1:], validation)
        accuracy.append(accuracy_of(tested))
        learner.console.print(f"{name}: accuracy on validation {accuracy[-1]:.3f}", highlight=False)
    best = int(np.argmax(accuracy))
    learner.write(run.adapter, points[best].weights)
    return {
        "training": summaries,
        "tokens": sum(one["tokens"] for one in summaries),
        "validation": accuracy,
        "best_round": best + 1,
    }


def responses_of(
    learner: Learner,
    questions: Mapping[str, Question],
    rationales: Mapping[str, Sequence[Rationale]],
    *,
    without_question: bool = False,
) -> tuple[Responses, dict[tuple[str, int], int]]:
    """Return the rationales that were read as responses with their own answers, and the number of each by question
    and place.

    `without_question`: the prompts name no question, as in the released code.
    """
    prompts, responses, prompt_of, place = [], [], [], {}
    for id, mine in rationales.items():
        question = questions[id]
        asked = question if not without_question else Question("", "", (), 0)
        prompts.append(learner.encoder.prompt(learner.wording.prompt(asked)))
        for number, one in enumerate(mine):
            if one.prediction is not None:
                place[id, number] = len(responses)
                responses.append(learner.response(question, one.text, one.prediction))
                prompt_of.append(len(prompts) - 1)
    return Responses(prompts, responses, prompt_of, np.zeros(len(responses))), place


def pairs_of(choices: Sequence[Choice], place: Mapping[tuple[str, int], int]) -> list[Pair]:
    """Return drawn pairs by the numbers of their responses."""
    return [Pair(place[one.question, one.better], place[one.question, one.other]) for one in choices]
