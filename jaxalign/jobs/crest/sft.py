"""stage=sft: supervised fine-tuning on the rationales that pass; the epoch that is best on validation counts."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jaxalign.data.datasets.question import Question
from jaxalign.errors import UserError
from jaxalign.jobs.crest.evaluate import read_rationales
from jaxalign.jobs.crest.session import CrestSession, encoded, identity_hash, tokens_of_answers
from jaxalign.models.adapter import Adapter
from jaxalign.models.lora import LoraParams
from jaxalign.reasoning.answers import accuracy_of
from jaxalign.reasoning.filtering import passes
from jaxalign.reasoning.rationales import Rationale
from jaxalign.runs.directory import Run
from jaxalign.training.supervised import SupervisedStage

FILES = ("checkpoints", "adapter", "epochs", "metrics.jsonl", "validation.jsonl", "generations.jsonl")

WITHOUT = ("seed", "dpo", "crest.mixing", "crest.iterations", "released.prompt_without_question")
"""Keys that change no number of this stage."""

TokenPairs = tuple[list[np.ndarray], list[np.ndarray]]
"""Prompts and responses as tokens, int32 [n] each."""


def sft_stage(session: CrestSession, name: str, evaluated: Run | None, start: Adapter) -> Adapter | None:
    """Fine-tune on what is kept of the rationales, or (`sft.rationale=false`) on the labels alone; None where what was
    asked for ends before it."""
    c = session.config
    if evaluated is not None and c.sft.rationale:
        source = identity_hash(evaluated)
    else:
        source, evaluated = session.questions_hash("train"), None
    identity = session.identity(
        WITHOUT,
        few_shot=c.crest.few_shot or c.test.few_shot,
        input=source,
        start=start.identity if c.crest.continue_adapter else "",
        validation=session.questions_hash("validation"),
    )
    first = start if c.crest.continue_adapter and start.params is not None else session.fresh()

    def work(run: Run) -> dict[str, Any]:
        examples = label_examples(session) if evaluated is None else kept_examples(session, evaluated)
        return fine_tune(session, run, name, examples, first)

    run = session.stages.do(name, identity, work, files=FILES, records=("generations.jsonl",))
    return None if run is None else session.read(run.adapter, name)


def fine_tune(session: CrestSession, run: Run, name: str, examples: TokenPairs, start: Adapter) -> dict[str, Any]:
    """Train from an adapter, keep every epoch's, and the best of them as the run's; return the stage's summary."""
    config, (prompts, responses) = session.config.sft, examples
    settings = session.settings(
        config, start, epochs=float(config.epochs), batch_size=config.batch_size, max_steps=config.max_steps
    )
    epochs = run.path / "epochs"

    def keep(epoch: int, params: LoraParams) -> None:
        session.write(epochs / str(epoch + 1), dataclasses.replace(start, params=params))

    stage = SupervisedStage("sft", encoded(prompts, responses), encoded([], []))
    assert start.params is not None
    _, summary = session.trainer(run, "sft").train_stage(stage, settings, start.params, on_epoch=keep)
    # What a kill left of an adapter half written has another name.
    folders = sorted((one for one in epochs.iterdir() if one.name.isdigit()), key=lambda folder: int(folder.name))
    models = [session.read(folder, f"{name}, epoch {folder.name}") for folder in folders]
    accuracy = [accuracy_of(answers) for answers in session.ask(run, models, session.questions.validation)]
    best = int(np.argmax(accuracy))
    session.write(run.adapter, models[best])
    return {
        "kept": len(prompts),
        "training": [summary],
        "tokens": summary["tokens"] + tokens_of_answers(run),
        "validation": accuracy,
        "best_epoch": best + 1,
    }


def label_examples(session: CrestSession) -> TokenPairs:
    """Return the training questions with their gold answers alone."""
    questions = session.questions.train
    prompts = [session.encoder.prompt(session.wording.prompt(question)) for question in questions]
    return prompts, [session.response(question, "", question.gold) for question in questions]


def kept_examples(session: CrestSession, evaluated: Run) -> TokenPairs:
    """Return the questions with the rationales that pass the filter, each with its own answer.

    Raises:
        UserError: there is none.
    """
    c = session.config
    rationales = read_rationales(evaluated, session.questions.train)
    return choose_examples(
        session,
        session.by_id,
        rationales,
        tolerance=c.crest.tolerance,
        threshold=c.released.threshold,
        end=not c.released.no_end_token,
    )


def choose_examples(
    session: CrestSession,
    questions: Mapping[str, Question],
    rationales: Mapping[str, Sequence[Rationale]],
    *,
    tolerance: int | None,
    threshold: int | None = None,
    end: bool = True,
) -> TokenPairs:
    """Return the questions with the rationales that pass, each with its own answer.

    Args:
        session: encodes them.
        questions: by id.
        rationales: read, by the question's id.
        tolerance: see `passes`.
        threshold: see `passes`.
        end: whether the end token is trained.

    Raises:
        UserError: there is none.
    """
    right = sum(bool(one.right) for mine in rationales.values() for one in mine)
    prompts, responses = [], []
    for id, mine in rationales.items():
        question = questions[id]
        for one in mine:
            if passes(one, len(question.options), tolerance, threshold):
                assert one.prediction is not None
                prompts.append(session.encoder.prompt(session.wording.prompt(question)))
                responses.append(session.response(question, one.text, one.prediction, end=end))
    if not right:
        raise UserError(
            "no rationale leads to the right answer (z = 1): sample more (crest.samples), choose a stronger model, "
            "or give it worked examples (crest.few_shot=true)"
        )
    if not prompts:
        mend = (
            f"raise crest.tolerance (now {tolerance}), or give crest.tolerance=null"
            if threshold is None
            else f"lower released.threshold (now {threshold}), or give released.threshold=null"
        )
        raise UserError(f"of {right} rationales with z = 1 none is kept: {mend}")
    return prompts, responses
