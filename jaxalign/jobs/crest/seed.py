"""The seed: a starting adapter for a model that is too small to reason unaided. Ours, not the paper's."""

from collections.abc import Sequence
from typing import Any

from jaxalign.data.datasets.questions import Question
from jaxalign.jobs.crest.learner import Learner, encoded
from jaxalign.runs.directory import Run
from jaxalign.training.supervised import SupervisedStage


def learn_seed(
    learner: Learner, run: Run, questions: Sequence[Question], *, epochs: float, batch_size: int, learning_rate: float
) -> dict[str, Any]:
    """Fine-tune an adapter on solved questions, and on follow-up questions about them; return the stage's summary."""
    encoder, wording = learner.encoder, learner.wording
    prompts, responses = [], []
    for number, question in enumerate(questions):
        prompts.append(encoder.prompt(wording.prompt(question)))
        responses.append(learner.response(question, question.solution, question.gold))
        # The right option and one wrong one, in turn: as many affirmations as denials.
        wrong = [option for option in range(len(question.options)) if option != question.gold]
        for option in (question.gold, wrong[number % len(wrong)]):
            prompts.append(encoder.prompt(wording.ask(question, option)))
            verdict = wording.affirm if option == question.gold else wording.deny
            responses.append(learner.closed(question, question.solution, option, verdict))
    data = SupervisedStage("seed", encoded(prompts, responses), encoded([], []))
    settings = learner.settings(epochs=epochs, batch_size=batch_size, learning_rate=learning_rate)
    adapter, summary = learner.fit(run, data, settings, learner.fresh(), [], key="seed")
    learner.write(run.adapter, adapter)
    return {"training": [summary], "tokens": summary["tokens"]}
