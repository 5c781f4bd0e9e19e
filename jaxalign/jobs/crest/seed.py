"""stage=seed: a starting adapter for a model that is too small to reason without help. The paper has no such stage."""

import dataclasses
from typing import Any

from jaxalign.config.training import ScheduleConfig
from jaxalign.jobs.crest import keys
from jaxalign.jobs.crest.session import CrestSession, encoded
from jaxalign.models.adapter import Adapter
from jaxalign.runs.directory import Run
from jaxalign.runs.stages import StageSpec
from jaxalign.training.supervised import SupervisedStage

SEED_STAGE = StageSpec(
    files=("checkpoints", "adapter", "metrics.jsonl", "validation.jsonl"),
    without=(*keys.METHOD, *keys.SAMPLING, *keys.SFT, *keys.DPO, *keys.TEST, *keys.RELEASED),
)


def seed_stage(session: CrestSession) -> Adapter | None:
    """Fine-tune a starting adapter on solved questions, and return it.

    Returns None if the command stops before this stage; for errors see `Stages.do`.
    """
    identity = session.identity(SEED_STAGE, few_shot=False, questions=session.questions_hash("solved"))
    run = session.stages.do("seed", SEED_STAGE, identity, lambda run: learn_seed(session, run))
    return None if run is None else session.read(run.adapter, "seed")


def learn_seed(session: CrestSession, run: Run) -> dict[str, Any]:
    """Fine-tune an adapter on solved questions, and on follow-up questions about them; return the stage's summary."""
    wording, config = session.wording, session.config.seed
    texts = []
    for number, question in enumerate(session.questions.solved):
        texts.append((wording.prompt(question), wording.response(question, question.solution, question.gold)))
        # One follow-up about the right option and one about a wrong one, so that both judgements are equally frequent.
        wrong = [option for option in range(len(question.options)) if option != question.gold]
        for option in (question.gold, wrong[number % len(wrong)]):
            verdict = wording.affirm if option == question.gold else wording.deny
            judged = f"{question.solution}\n{wording.close(question, option)}{verdict}"
            texts.append((wording.ask(question, option), judged))
    pairs = [session.example(prompt, response) for prompt, response in texts]
    start = session.fresh()
    assert start.params is not None
    schedule = ScheduleConfig(learning_rate=config.learning_rate, schedule="linear", warmup_steps=0)
    settings = session.settings(schedule, start, epochs=config.epochs, batch_size=config.batch_size)
    examples = encoded([prompt for prompt, _ in pairs], [response for _, response in pairs])
    stage = SupervisedStage("seed", examples, encoded([], []))
    params, summary = session.trainer(run, "seed").train_stage(stage, settings, start.params)
    session.write(run.adapter, dataclasses.replace(start, params=params))
    return {"training": [summary], "tokens": summary["tokens"]}
