"""Drawing rationales: N samples for each question, by the model with an adapter, without a hint of the answer."""

from collections.abc import Sequence
from typing import Any

from jaxalign.config.crest import CrestSamplingConfig
from jaxalign.data.datasets.questions import Question
from jaxalign.inference.generations import PromptRequest, record_key, sample_missing
from jaxalign.inference.sampling_params import SamplingParams
from jaxalign.jobs.crest.learner import Learner, Point
from jaxalign.runs.directory import Run
from jaxalign.runs.progress import Progress
from jaxalign.runs.records import read_records


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
    with Progress(learner.console) as progress:
        return sample_missing(
            learner.base.sampler(learner.stacked([by]), sampling.rows),
            _asked(learner, questions, few_shot, hint),
            samples,
            how(sampling, learner.wording.marker),
            run.generations,
            model=learner.base_identity,
            adapters=[by.identity],
            progress=progress.samples(what),
        )


def read_samples(
    learner: Learner,
    run: Run,
    by: Point,
    questions: Sequence[Question],
    samples: int,
    sampling: CrestSamplingConfig,
    *,
    few_shot: bool,
) -> list[list[dict[str, Any]]]:
    """Return what `sample` returned to a run that is finished.

    Records are found by what makes them: two questions of one prompt share theirs, which name the first of the two.
    """
    known = {record["key"]: record for record in read_records(run.generations)}
    drawn = how(sampling, learner.wording.marker)
    return [
        [known[record_key(learner.base_identity, by.identity, one.tokens, drawn, index)] for index in range(samples)]
        for one in _asked(learner, questions, few_shot, False)
    ]


def how(sampling: CrestSamplingConfig, marker: str) -> SamplingParams:
    """Return how rationales are drawn: a rationale ends where its answer would begin, whatever `stop` says."""
    s = sampling
    stop = s.stop if marker in s.stop else (*s.stop, marker)
    return SamplingParams(s.temperature, s.top_k, s.top_p, s.max_tokens, stop, s.seed)


def _asked(learner: Learner, questions: Sequence[Question], few_shot: bool, hint: bool) -> list[PromptRequest]:
    encoder = learner.few if few_shot else learner.encoder
    return [
        PromptRequest(
            question.text, encoder.prompt(learner.wording.prompt(question, hint=hint)), 0, {"id": question.id}
        )
        for question in questions
    ]


def sampled(records: Sequence[Sequence[dict[str, Any]]]) -> dict[str, Any]:
    """Return the summary of what was drawn: samples, tokens, and how they ended."""
    everyone = [record for mine in records for record in mine]
    return {
        "sampled": len(everyone),
        "tokens": sum(record["tokens"] for record in everyone),
        "ends": {end: sum(r["end"] == end for r in everyone) for end in ("stop", "eos", "length")},
    }
