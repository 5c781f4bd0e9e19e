"""Drawing rationales: N samples for each question, by the model with an adapter, without a hint of the answer."""

from collections.abc import Sequence
from typing import Any

from jaxalign.config import CrestSamplingConfig
from jaxalign.data.datasets.questions import Question
from jaxalign.inference.generations import Asked, generate
from jaxalign.inference.sampler import Sampling
from jaxalign.progress import Progress
from jaxalign.reasoning.learner import Learner, Point
from jaxalign.runs import Run


def sample(
    learner: Learner,
    run: Run,
    by: Point,
    questions: Sequence[Question],
    samples: int,
    sampling: CrestSamplingConfig,
    *,
    few_shot: bool,
    hint: bool = False,
    what: str = "rationales",
) -> list[list[dict[str, Any]]]:
    """Draw what the run does not hold yet, and return the records of each question."""
    encoder = learner.few if few_shot else learner.encoder
    asked = [
        Asked(question.text, encoder.prompt(learner.wording.prompt(question, hint=hint)), 0, {"id": question.id})
        for question in questions
    ]
    s = sampling
    how = Sampling(s.temperature, s.top_k, s.top_p, s.max_tokens, s.stop, s.seed)
    with Progress(learner.console) as progress:
        return generate(
            learner.base.sampler(learner.stacked([by]), s.rows),
            asked,
            samples,
            how,
            run.generations,
            model=learner.base_identity,
            adapters=[by.identity],
            progress=progress.samples(what),
        )


def sampled(records: Sequence[Sequence[dict[str, Any]]]) -> dict[str, Any]:
    """Return the summary of what was drawn: samples, tokens, and how they ended."""
    everyone = [record for mine in records for record in mine]
    return {
        "sampled": len(everyone),
        "tokens": sum(record["tokens"] for record in everyone),
        "ends": {end: sum(r["end"] == end for r in everyone) for end in ("stop", "eos", "length")},
    }
