"""stage=sft: supervised fine-tuning on the rationales that pass the filter.

The result is the epoch with the best accuracy on validation.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jaxalign.data.datasets.question import Question
from jaxalign.errors import UserError
from jaxalign.jobs.crest import keys
from jaxalign.jobs.crest.evaluate import read_rationales
from jaxalign.jobs.crest.session import CrestSession, encoded, tokens_of_answers
from jaxalign.models.adapter import Adapter
from jaxalign.models.lora import LoraParams
from jaxalign.reasoning.answers import accuracy_of
from jaxalign.reasoning.filtering import passes
from jaxalign.reasoning.rationales import Rationale
from jaxalign.runs.config_file import owner
from jaxalign.runs.directory import GENERATIONS, Run
from jaxalign.runs.stages import StageSpec
from jaxalign.training.supervised import SupervisedStage

SFT_STAGE = StageSpec(
    files=("checkpoints", "adapter", "epochs", "metrics.jsonl", "validation.jsonl", GENERATIONS),
    records=(GENERATIONS,),
    without=(*keys.SEED, *keys.DPO, "crest.mixing", "crest.iterations", "released.prompt_without_question"),
)

TokenPairs = tuple[list[np.ndarray], list[np.ndarray]]
"""Prompts and responses as tokens, int32 [n] for each."""


def sft_stage(session: CrestSession, name: str, evaluated: Run | None, start: Adapter) -> Adapter | None:
    """Fine-tune on the rationales that pass the filter, or (`sft.rationale=false`) on the labels alone.

    Args:
        session: the model and the settings.
        name: the name of the stage: sft, sft-2, ...
        evaluated: the run of stage=evaluate; None if no rationales are used.
        start: the seed adapter or the bare base. Training starts from it, or, with `crest.continue_adapter=false` or
            the bare base, from a new adapter.

    Returns:
        The fine-tuned adapter, or None if the command stops before this stage.

    Raises:
        UserError: see `Stages.do` and `choose_examples`; or a loss is not a number.
    """
    c = session.config
    if evaluated is not None and c.sft.rationale:
        source = owner(evaluated.path)
    else:
        source, evaluated = session.questions_hash("train"), None
    identity = session.identity(
        SFT_STAGE,
        few_shot=c.crest.few_shot or c.test.few_shot,
        input=source,
        start=start.identity if c.crest.continue_adapter else "",
        validation=session.questions_hash("validation"),
    )
    first = start if c.crest.continue_adapter and start.params is not None else session.fresh()

    def work(run: Run) -> dict[str, Any]:
        examples = label_examples(session) if evaluated is None else kept_examples(session, evaluated)
        return fine_tune(session, run, name, examples, first)

    run = session.stages.do(name, SFT_STAGE, identity, work)
    return None if run is None else session.read(run.adapter, name)


def fine_tune(session: CrestSession, run: Run, name: str, examples: TokenPairs, start: Adapter) -> dict[str, Any]:
    """Train, and return the stage's summary. The adapter of each epoch is kept; the best one is the run's adapter.

    Args:
        session: the model and the settings.
        run: the run of this stage.
        name: the name of the stage.
        examples: the prompts and responses to train on.
        start: the adapter that training starts from.
    """
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
    # A kill may leave a half-written adapter, whose folder has another name.
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
    """Return the training questions with their gold answers as responses, without rationales."""
    questions = session.questions.train
    wording = session.wording
    pairs = [session.example(wording.prompt(one), wording.response(one, "", one.gold)) for one in questions]
    return [prompt for prompt, _ in pairs], [response for _, response in pairs]


def kept_examples(session: CrestSession, evaluated: Run) -> TokenPairs:
    """Return the training questions with the rationales that pass the configured filter, as prompts and responses.

    Raises:
        UserError: no rationale passes.
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
    """Return prompts and responses: one for each rationale that passes the filter, with the answer that it leads to.

    Args:
        session: the encoder and the wording.
        questions: the questions by their ids.
        rationales: the rationales of each question with their readings, by its id.
        tolerance: see `passes`.
        threshold: see `passes`.
        end: whether responses end in the EOS.

    Raises:
        UserError: no rationale passes.
    """
    right = sum(bool(one.right) for mine in rationales.values() for one in mine)
    prompts, responses = [], []
    for id, mine in rationales.items():
        question = questions[id]
        for one in mine:
            if passes(one, len(question.options), tolerance, threshold):
                assert one.prediction is not None
                said = session.wording.response(question, one.text, one.prediction)
                prompt, response = session.example(session.wording.prompt(question), said, end=end)
                prompts.append(prompt)
                responses.append(response)
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
        raise UserError(f"the filter keeps none of the {right} rationales with z = 1: {mend}")
    return prompts, responses
