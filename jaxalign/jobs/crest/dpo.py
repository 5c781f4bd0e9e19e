"""stage=dpo: rounds of preference optimisation, each measured from the adapter that the round before ended with; the
round that is best on validation counts."""

import dataclasses
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jaxalign.data.datasets.question import Question
from jaxalign.data.preferences import PreferencePair, Responses
from jaxalign.data.trees import tree_length
from jaxalign.inference.reference import read_reference
from jaxalign.jobs.crest.evaluate import read_rationales
from jaxalign.jobs.crest.preferences import read_pairs
from jaxalign.jobs.crest.session import CrestSession, identity_hash, tokens_of_answers
from jaxalign.models.adapter import Adapter
from jaxalign.reasoning.answers import accuracy_of
from jaxalign.reasoning.preferences import Choice
from jaxalign.reasoning.rationales import Rationale
from jaxalign.runs.directory import Run
from jaxalign.runs.progress import Progress
from jaxalign.training.preference import PreferenceStage

FILES = (
    *("checkpoints", "adapter", "rounds", "metrics.jsonl", "validation.jsonl", "generations.jsonl"),
    *("reference.jsonl", "shapes.jsonl"),
)

WITHOUT = ("crest", "seed", "sft")
"""Keys that change no number of this stage."""


def dpo_stage(session: CrestSession, evaluated: Run, drawn: Run, start: Adapter) -> list[Adapter] | None:
    """Learn the preferences in rounds; return every round's adapter, None where what was asked for ends before it."""
    c = session.config
    identity = session.identity(
        WITHOUT,
        few_shot=c.crest.few_shot or c.test.few_shot,
        input=identity_hash(drawn),
        start=start.identity,
        validation=session.questions_hash("validation"),
    )

    def work(run: Run) -> dict[str, Any]:
        rationales = read_rationales(evaluated, session.questions.train)
        without = c.released.prompt_without_question
        data, place = responses_of(session, session.by_id, rationales, without_question=without)
        rounds = [pairs_of(choices, place) for choices in read_pairs(drawn, c.dpo.rounds)]
        first = start if start.params is not None else session.fresh()
        return learn_rounds(session, run, first, data, rounds)

    run = session.stages.do("dpo", identity, work, files=FILES, records=("generations.jsonl",))
    if run is None:
        return None
    numbers = range(1, c.dpo.rounds + 1)
    return [session.read(run.path / "rounds" / str(number), f"round {number}") for number in numbers]


def learn_rounds(
    session: CrestSession, run: Run, start: Adapter, data: Responses, rounds: Sequence[Sequence[PreferencePair]]
) -> dict[str, Any]:
    """Learn each round's pairs, keep its adapter, and the best as the run's; return the stage's summary.

    A round that an earlier process finished is read, not learnt again.
    """
    assert start.params is not None
    before = session.trainer(run, "dpo").finished(start.params, "adamw")
    models, summaries, accuracy = [start], [], []
    for number, pairs in enumerate(rounds, start=1):
        name, folder = f"round {number}", run.path / "rounds" / str(number)
        if number <= len(before) and folder.is_dir():
            summaries.append(before[number - 1])
        else:
            adapter, summary = learn_round(session, run, number, models[-1], data, list(pairs), summaries)
            summaries.append(summary)
            session.write(folder, adapter)
        models.append(session.read(folder, name))
        (answers,) = session.ask(run, models[-1:], session.questions.validation)
        accuracy.append(accuracy_of(answers))
        session.console.print(f"{name}: accuracy on validation {accuracy[-1]:.3f}", highlight=False)
    best = int(np.argmax(accuracy)) + 1
    session.write(run.adapter, models[best])
    tokens = sum(one["tokens"] + one["reference_tokens"] for one in summaries)
    return {
        "training": summaries,
        "tokens": tokens + tokens_of_answers(run),
        "validation": accuracy,
        "best_round": best,
    }


def learn_round(
    session: CrestSession,
    run: Run,
    number: int,
    reference: Adapter,
    data: Responses,
    pairs: list[PreferencePair],
    before: list[dict[str, Any]],
) -> tuple[Adapter, dict[str, Any]]:
    """Learn one round's pairs from the adapter that is its reference; return the adapter and the round's summary."""
    assert reference.params is not None
    used, config = sorted({response for pair in pairs for response in pair}), session.config.dpo
    since = time.perf_counter()
    with Progress(session.console) as progress:
        log_probs = read_reference(
            session.scorer(reference),
            data,
            used,
            run.path / "reference.jsonl",
            model=session.base.signature,
            progress=progress.samples(f"round {number}: reference", "prompt"),
        )
    seconds = time.perf_counter() - since
    data = dataclasses.replace(data, reference=log_probs)
    grouped = config.batching == "grouped"
    stage = PreferenceStage(f"round-{number}", data, pairs, objective=config.loss, grouped=grouped)
    settings = session.settings(config, reference, dropout=0.0, epochs=1.0, batch_size=config.batch_size)
    params, summary = session.trainer(run, "dpo").train_stage(stage, settings, reference.params, before)
    return dataclasses.replace(reference, params=params), {
        **summary,
        "reference": {"name": reference.name, "identity": reference.identity},
        "reference_tokens": sum(tree_length(tree) for tree, _ in data.trees(used)),
        "reference_seconds": seconds,
    }


def responses_of(
    session: CrestSession,
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
        text = session.wording.prompt(asked) or "\n"  # a prompt is never empty
        prompts.append(session.encoder.prompt(text))
        known: dict[tuple[str, int], int] = {}
        for number, one in enumerate(mine):
            if one.prediction is not None:
                if (one.text, one.prediction) not in known:
                    known[one.text, one.prediction] = len(responses)
                    responses.append(session.response(question, one.text, one.prediction))
                    prompt_of.append(len(prompts) - 1)
                place[id, number] = known[one.text, one.prediction]
    return Responses(prompts, responses, prompt_of, np.zeros(len(responses))), place


def pairs_of(choices: Sequence[Choice], place: Mapping[tuple[str, int], int]) -> list[PreferencePair]:
    """Return drawn pairs by the numbers of their responses."""
    return [PreferencePair(place[one.question, one.better], place[one.question, one.other]) for one in choices]
