"""stage=rationales: the model samples N rationales for each training question, without a hint of the answer."""

from collections.abc import Sequence
from typing import Any

from jaxalign.data.datasets.question import Question
from jaxalign.inference.generations import PromptRequest, count_samples, read_whole, record_key, sample_missing
from jaxalign.jobs.crest import keys
from jaxalign.jobs.crest.session import CrestSession
from jaxalign.models.adapter import Adapter
from jaxalign.parallel.distributed import stoppable
from jaxalign.runs.directory import GENERATIONS, Run
from jaxalign.runs.progress import Progress
from jaxalign.runs.stages import StageSpec

RATIONALES_STAGE = StageSpec(
    files=(GENERATIONS,),
    records=(GENERATIONS,),
    without=(
        *(*keys.SEED, *keys.SFT, *keys.DPO, *keys.TEST, *keys.LORA, *keys.OPTIMIZER, *keys.TRAINING, *keys.RELEASED),
        *("crest.tolerance", "crest.mixing", "crest.deduplicate", "crest.label", "crest.hint", "crest.iterations"),
        "crest.continue_adapter",
    ),
)


def rationales_stage(session: CrestSession, name: str, model: Adapter) -> Run | None:
    """Sample rationales for the training questions.

    Args:
        session: the model and the settings.
        name: the name of the stage: rationales, rationales-2, ...
        model: the adapter that samples.

    Returns:
        The finished run, or None if the command stops before this stage.

    Raises:
        UserError: see `Stages.do`.
    """
    few_shot = session.config.crest.few_shot
    questions = session.questions_hash("train")
    identity = session.identity(RATIONALES_STAGE, few_shot=few_shot, adapter=model.identity, questions=questions)

    def work(run: Run) -> dict[str, Any]:
        return count_samples(draw_rationales(session, run, model, session.questions.train))

    return session.stages.do(name, RATIONALES_STAGE, identity, work)


def draw_rationales(
    session: CrestSession,
    run: Run,
    model: Adapter,
    questions: Sequence[Question],
    *,
    hint: bool = False,
    what: str = "rationales",
) -> list[list[dict[str, Any]]]:
    """Draw the samples that the run does not hold yet, and return the records of each question.

    Args:
        session: the model and the settings.
        run: the run that holds the samples.
        model: the adapter that samples.
        questions: the questions.
        hint: whether the prompt gives the right answer (STaR).
        what: the word for the samples in the progress display.
    """
    with Progress(session.console) as progress:
        return sample_missing(
            session.sampler(model),
            rationale_requests(session, questions, hint),
            session.config.crest.samples,
            session.rationale_sampling,
            run.generations,
            model=session.base.signature,
            adapters=[model.identity],
            progress=stoppable(progress.samples(what)),
        )


def read_drawn(session: CrestSession, run: Run, model: Adapter) -> list[list[dict[str, Any]]]:
    """Return the records of each training question in a finished run of this stage.

    Records are found by their keys and not by the questions' ids, because two questions with the same prompt share
    their samples, whose records name only the first of the two.
    """
    known = read_whole(run.generations)
    sampling = session.rationale_sampling
    samples, base = range(session.config.crest.samples), session.base.signature
    requests = rationale_requests(session, session.questions.train, False)
    return [[known[record_key(base, model.identity, one.tokens, sampling, n)] for n in samples] for one in requests]


def rationale_requests(session: CrestSession, questions: Sequence[Question], hint: bool) -> list[PromptRequest]:
    """Return one request for each question; with `crest.few_shot`, its prompt begins with the worked examples."""
    encoder = session.few_shot_encoder if session.config.crest.few_shot else session.encoder
    prompts = [encoder.prompt(session.wording.prompt(question, hint=hint)) for question in questions]
    return [
        PromptRequest(question.text, prompt, 0, {"id": question.id})
        for question, prompt in zip(questions, prompts, strict=True)
    ]
