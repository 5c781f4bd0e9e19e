"""stage=dpo: rounds of preference optimisation.

The reference of each round is the adapter that the round before ended with. The result is the round with the best
accuracy on validation.
"""

import dataclasses
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jaxalign.data.datasets.question import Question
from jaxalign.data.preferences import PreferencePair, Responses
from jaxalign.data.trees import tree_length
from jaxalign.inference.reference import REFERENCE, read_reference
from jaxalign.inference.shapes import SHAPES
from jaxalign.jobs.crest import keys
from jaxalign.jobs.crest.evaluate import read_rationales
from jaxalign.jobs.crest.preferences import read_pairs
from jaxalign.jobs.crest.session import CrestSession, tokens_of_answers
from jaxalign.models.adapter import Adapter
from jaxalign.parallel.distributed import stoppable
from jaxalign.reasoning.answers import accuracy_of
from jaxalign.reasoning.preferences import RationalePair
from jaxalign.reasoning.rationales import Rationale
from jaxalign.runs.config_file import owner
from jaxalign.runs.directory import GENERATIONS, Run
from jaxalign.runs.progress import Progress
from jaxalign.runs.stages import StageSpec
from jaxalign.training.preference import PreferenceStage

DPO_STAGE = StageSpec(
    files=(
        *("checkpoints", "adapter", "rounds", "metrics.jsonl", "validation.jsonl", GENERATIONS),
        *(REFERENCE, SHAPES),
    ),
    records=(GENERATIONS,),
    without=(*keys.METHOD, *keys.SEED, *keys.SFT),
)


def dpo_stage(session: CrestSession, evaluated: Run, drawn: Run, start: Adapter) -> list[Adapter] | None:
    """Train on the preference pairs in rounds; return the adapter of each round.

    Args:
        session: the model and the settings.
        evaluated: the run of stage=evaluate, which holds the rationales.
        drawn: the run of stage=preferences, which holds the pairs.
        start: the adapter that the first round starts from; for the bare base, a new adapter.

    Returns:
        The adapters, or None if the command stops before this stage.

    Raises:
        UserError: see `Stages.do`; or a loss is not a number.
    """
    c = session.config
    identity = session.identity(
        DPO_STAGE,
        few_shot=c.crest.few_shot or c.test.few_shot,
        input=owner(drawn.path),
        start=start.identity,
        validation=session.questions_hash("validation"),
    )

    def work(run: Run) -> dict[str, Any]:
        rationales = read_rationales(evaluated, session.questions.train)
        without = c.released.prompt_without_question
        data, place = responses_of(session, session.by_id, rationales, without_question=without)
        rounds = [pairs_of(drawn_pairs, place) for drawn_pairs in read_pairs(drawn, c.dpo.rounds)]
        first = start if start.params is not None else session.fresh()
        return learn_rounds(session, run, first, data, rounds)

    run = session.stages.do("dpo", DPO_STAGE, identity, work)
    if run is None:
        return None
    numbers = range(1, c.dpo.rounds + 1)
    return [session.read(run.path / "rounds" / str(number), f"round {number}") for number in numbers]


def learn_rounds(
    session: CrestSession, run: Run, start: Adapter, data: Responses, rounds: Sequence[Sequence[PreferencePair]]
) -> dict[str, Any]:
    """Train all rounds, each on its own pairs, and return the stage's summary.

    The adapter of every round is kept, and the best one is the run's adapter. A round that an earlier process finished
    is read and not trained again.
    """
    assert start.params is not None
    before = session.trainer(run, "dpo").finished()
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
    """Train on the pairs of one round, and return the adapter and the round's summary.

    Args:
        session: the model and the settings.
        run: the run of this stage.
        number: the number of the round, from 1.
        reference: the adapter that the round starts from, which is also its reference.
        data: the responses.
        pairs: the pairs of the round.
        before: the summaries of the earlier rounds.
    """
    assert reference.params is not None
    used, config = sorted({response for pair in pairs for response in pair}), session.config.dpo
    since = time.perf_counter()
    with Progress(session.console) as progress:
        log_probs = read_reference(
            session.scorer(reference),
            data,
            used,
            run.path / REFERENCE,
            model=session.base.signature,
            progress=stoppable(progress.samples(f"round {number}: reference", "prompt")),
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
    """Return the rationales as responses, each with the answer that it leads to, and where each of them is.

    Rationales without a prediction are left out. Equal rationales of one question are one response.

    Args:
        session: the encoder and the wording.
        questions: the questions by their ids.
        rationales: the rationales of each question, by its id.
        without_question: whether the question is left out of the prompts, as in the released code.

    Returns:
        The responses, and the number of each response by (id of the question, index of the rationale).
    """
    prompts, responses, prompt_of, place = [], [], [], {}
    for id, mine in rationales.items():
        question = questions[id]
        asked = question if not without_question else Question("", "", (), 0)
        text = session.wording.prompt(asked) or "\n"  # because a prompt must not be empty
        said = {
            number: session.wording.response(question, one.text, one.prediction)
            for number, one in enumerate(mine)
            if one.prediction is not None
        }
        distinct = list(dict.fromkeys(said.values()))
        prompt, branches = session.encoder.branches(text, distinct, end=True)
        place |= {(id, number): len(responses) + distinct.index(response) for number, response in said.items()}
        prompt_of += [len(prompts)] * len(branches)
        prompts.append(prompt)
        responses += branches
    return Responses(prompts, responses, prompt_of, np.zeros(len(responses))), place


def pairs_of(drawn_pairs: Sequence[RationalePair], place: Mapping[tuple[str, int], int]) -> list[PreferencePair]:
    """Return the drawn pairs as pairs of response numbers; `place` comes from `responses_of`."""
    return [PreferencePair(place[one.question, one.better], place[one.question, one.worse]) for one in drawn_pairs]
