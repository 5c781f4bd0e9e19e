"""Supervised fine-tuning on the rationales that pass the filter; the epoch that is best on validation counts."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jaxalign.config.crest import SftConfig
from jaxalign.data.datasets.questions import Question
from jaxalign.errors import UserError
from jaxalign.jobs.crest.learner import Learner, encoded
from jaxalign.jobs.crest.test import accuracy_of
from jaxalign.models.lora import LoraParams
from jaxalign.reasoning.filtering import passes
from jaxalign.reasoning.rationales import Rationale
from jaxalign.runs.directory import Run
from jaxalign.training.supervised import SupervisedStage

TokenPairs = tuple[list[np.ndarray], list[np.ndarray]]
"""Prompts and responses as tokens."""


def fine_tune(
    learner: Learner,
    run: Run,
    name: str,
    examples: TokenPairs,
    start: LoraParams,
    validation: Sequence[Question],
    sft: SftConfig,
) -> dict[str, Any]:
    """Train from an adapter, keep every epoch's, and the best of them as the run's; return the stage's summary."""
    prompts, responses = examples
    data = SupervisedStage("sft", encoded(prompts, responses), encoded([], []))
    settings = learner.settings(
        epochs=float(sft.epochs),
        batch_size=sft.batch_size,
        learning_rate=sft.learning_rate,
        schedule=sft.schedule,
        warmup_steps=sft.warmup_steps,
        max_steps=sft.max_steps,
    )
    epochs = run.path / "epochs"

    def keep(epoch: int, adapter: LoraParams) -> None:
        learner.write(epochs / str(epoch + 1), adapter)

    _, summary = learner.fit(run, data, settings, start, [], key="sft", on_epoch=keep)
    # What a kill left of an adapter half written has another name.
    folders = sorted((one for one in epochs.iterdir() if one.name.isdigit()), key=lambda folder: int(folder.name))
    points = [learner.point(f"{name}, epoch {folder.name}", folder) for folder in folders]
    accuracy = [accuracy_of(tested) for tested in learner.ask(run, points, validation)]
    best = int(np.argmax(accuracy))
    learner.write(run.adapter, points[best].weights)
    return {
        "kept": len(prompts),
        "training": [summary],
        "tokens": summary["tokens"] + learner.asked_tokens(run),
        "validation": accuracy,
        "best_epoch": best + 1,
    }


def label_examples(learner: Learner, questions: Sequence[Question]) -> TokenPairs:
    """Return the questions with their gold answers alone."""
    prompts = [learner.encoder.prompt(learner.wording.prompt(question)) for question in questions]
    return prompts, [learner.response(question, "", question.gold) for question in questions]


def kept_examples(
    learner: Learner,
    questions: Mapping[str, Question],
    rationales: Mapping[str, Sequence[Rationale]],
    *,
    tolerance: int | None,
    threshold: int | None = None,
    end: bool = True,
) -> TokenPairs:
    """Return the questions with the rationales that pass, each with its own answer.

    Args:
        learner: encodes them.
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
                prompts.append(learner.encoder.prompt(learner.wording.prompt(question)))
                responses.append(learner.response(question, one.text, one.prediction, end=end))
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
