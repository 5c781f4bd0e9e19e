"""Rounds of DPO: each measured from the adapter that the round before ended with; the best on validation counts."""

import dataclasses
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jaxalign.config.crest import DpoConfig
from jaxalign.data.datasets.questions import Question
from jaxalign.data.preferences import PreferencePair, Responses
from jaxalign.data.trees import tree_length
from jaxalign.inference.reference import read_reference
from jaxalign.jobs.crest.learner import Learner, Point
from jaxalign.jobs.crest.test import accuracy_of
from jaxalign.models.lora import LoraParams
from jaxalign.reasoning.preferences import Choice
from jaxalign.reasoning.rationales import Rationale
from jaxalign.runs.directory import Run
from jaxalign.runs.progress import Progress
from jaxalign.training.preference import PreferenceStage


def learn_rounds(
    learner: Learner,
    run: Run,
    start: Point,
    data: Responses,
    rounds: Sequence[Sequence[PreferencePair]],
    validation: Sequence[Question],
    dpo: DpoConfig,
) -> dict[str, Any]:
    """Learn each round's pairs, keep its adapter, and the best as the run's; return the stage's summary.

    A round that an earlier process finished is read, not learnt again.
    """
    assert start.weights is not None
    before = learner.finished(run, start.weights)
    points, summaries, accuracy = [start], [], []
    for number, pairs in enumerate(rounds, start=1):
        name, folder = f"round {number}", run.path / "rounds" / str(number)
        if number <= len(before) and folder.is_dir():
            summaries.append(before[number - 1])
        else:
            adapter, summary = _learn(learner, run, number, points[-1], data, list(pairs), summaries, dpo)
            summaries.append(summary)
            learner.write(folder, adapter)
        points.append(learner.point(name, folder))
        (tested,) = learner.ask(run, points[-1:], validation)
        accuracy.append(accuracy_of(tested))
        learner.console.print(f"{name}: accuracy on validation {accuracy[-1]:.3f}", highlight=False)
    best = int(np.argmax(accuracy)) + 1
    learner.write(run.adapter, points[best].weights)
    tokens = sum(one["tokens"] + one["reference_tokens"] for one in summaries)
    return {
        "training": summaries,
        "tokens": tokens + learner.asked_tokens(run),
        "validation": accuracy,
        "best_round": best,
    }


def _learn(
    learner: Learner,
    run: Run,
    number: int,
    reference: Point,
    data: Responses,
    pairs: list[PreferencePair],
    before: list[dict[str, Any]],
    dpo: DpoConfig,
) -> tuple[LoraParams, dict[str, Any]]:
    """Learn one round's pairs from the adapter that is its reference; return the adapter and the round's summary."""
    assert reference.weights is not None
    used = sorted({response for pair in pairs for response in pair})
    since = time.perf_counter()
    with Progress(learner.console) as progress:
        log_probs = read_reference(
            learner.base.scorer(reference.weights, learner.scale),
            data,
            used,
            run.path / "reference.jsonl",
            model=learner.base_identity,
            progress=progress.samples(f"round {number}: reference", "prompt"),
        )
    seconds = time.perf_counter() - since
    stage = PreferenceStage(
        f"round-{number}",
        dataclasses.replace(data, reference=log_probs),
        pairs,
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
    adapter, summary = learner.fit(run, stage, settings, reference.weights, before, key="dpo", prefix=number)
    return adapter, {
        **summary,
        "reference": {"name": reference.name, "identity": reference.identity},
        "reference_tokens": sum(tree_length(tree) for tree, _ in data.trees(used)),
        "reference_seconds": seconds,
    }


def responses_of(
    learner: Learner,
    questions: Mapping[str, Question],
    rationales: Mapping[str, Sequence[Rationale]],
    *,
    without_question: bool = False,
) -> tuple[Responses, dict[tuple[str, int], int]]:
    """Return the rationales that were read as responses with their own answers, and the number of each by question
    and place; equal ones are one response.

    `without_question`: the prompts name no question, as in the released code.
    """
    prompts, responses, prompt_of, place = [], [], [], {}
    for id, mine in rationales.items():
        question = questions[id]
        asked = question if not without_question else Question("", "", (), 0)
        text = learner.wording.prompt(asked) or "\n"  # a prompt is never empty
        prompts.append(learner.encoder.prompt(text))
        known: dict[tuple[str, int], int] = {}
        for number, one in enumerate(mine):
            if one.prediction is not None:
                if (one.text, one.prediction) not in known:
                    known[one.text, one.prediction] = len(responses)
                    responses.append(learner.response(question, one.text, one.prediction))
                    prompt_of.append(len(prompts) - 1)
                place[id, number] = known[one.text, one.prediction]
    return Responses(prompts, responses, prompt_of, np.zeros(len(responses))), place


def pairs_of(choices: Sequence[Choice], place: Mapping[tuple[str, int], int]) -> list[PreferencePair]:
    """Return drawn pairs by the numbers of their responses."""
    return [PreferencePair(place[one.question, one.better], place[one.question, one.other]) for one in choices]
