"""stage=grade: a judge grades the test rationales of a finished run by three rubrics.

The model that is judged is not loaded: its rationales are read from the run's records.
"""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxalign.analysis.estimates import Estimate
from jaxalign.analysis.intervals import mean_with_interval
from jaxalign.config.identity import counted
from jaxalign.config.safety import JudgeConfig
from jaxalign.errors import UserError
from jaxalign.inference.base_model import BaseModel
from jaxalign.inference.sampling_params import Completion, Request
from jaxalign.jobs.crest.evaluate import read_rationales
from jaxalign.jobs.crest.report import GRADES, read_gradings, write_page
from jaxalign.jobs.crest.session import CrestSession
from jaxalign.jobs.harm.judge import JUDGEMENTS
from jaxalign.jobs.harm.judges import OpenedJudge
from jaxalign.jobs.harm.keys import JUDGE
from jaxalign.jobs.harm.loaded_judges import WatchedJudge, print_estimate
from jaxalign.jobs.setup import OpenedModel
from jaxalign.models.adapter import Adapter
from jaxalign.parallel.compilation import Programs
from jaxalign.pretrained.sources import Model
from jaxalign.reasoning.answers import Answered
from jaxalign.reasoning.summary import CREST_SUMMARY
from jaxalign.reasoning.wording import Wording
from jaxalign.runs.directory import Run
from jaxalign.runs.progress import say
from jaxalign.runs.records import delete_entry, digest, write_atomic
from jaxalign.safety.calibration import judge_title
from jaxalign.safety.judgements import Exchange, Judgement, judge_missing, missing_exchanges
from jaxalign.safety.judges.api import RubricApi
from jaxalign.safety.judges.rubrics import RATIONALE_RUBRICS
from jaxalign.safety.states import is_blank


def base_without_weights(opened: OpenedModel) -> BaseModel:
    """Return a base that finds its own records and reads adapters. It has no weights, so it can answer nothing."""
    files = opened.files
    model = Model(files.architecture, {}, files.tokenizer, files.identify()[0], files.name, files.storage)
    return BaseModel(model, jnp.dtype(opened.config.precision), Programs(), opened.placement)


@dataclasses.dataclass(frozen=True)
class Recorded:
    """An engine for a file that holds all samples already. It draws none."""

    path: Path
    engine: str = "records"

    def sample(self, requests: Sequence[Request], *_: Any, **__: Any) -> list[list[Completion]]:
        """Return nothing for no request; UserError if a sample is missing."""
        if requests:
            raise UserError(
                f"{self.path} lacks answers of the test ({len(requests):,}): answer it again with stage=test "
                "run.overwrite=true"
            )
        return []


def grade_stage(
    session: CrestSession, run: Run, models: Sequence[Adapter], graders: Sequence[OpenedJudge], evaluated: Run | None
) -> None:
    """Grade the test rationales, and put the grades into grades.json and into the report.

    Judgements are appended to judgements.jsonl as they are made, and only missing ones are asked for. The grades of
    other judges stay beside them.

    Args:
        session: the settings and the wording; its base may be without weights.
        run: the whole run, which is finished.
        models: the base, and the adapters that the stages ended with.
        graders: the judge, once for each rubric (see `open_rubrics`).
        evaluated: the run of the last stage=evaluate; None if there was none.

    Raises:
        UserError: an answer of the test is missing in the run's records, or the judge cannot judge.
    """
    c, summary, path = session.config, run.results(**CREST_SUMMARY), run.path / JUDGEMENTS
    assert c.judge is not None  # stage=grade has one
    key, again = grading_key(c.judge, graders), c.run.overwrite
    gradings = {} if again else {one["key"]: one for one in read_gradings(run)}
    title = judge_title(graders[0].name, graders[0].model)
    rationales = {} if evaluated is None else read_rationales(evaluated, session.questions.train)
    if key in gradings and not gradings[key]["missing"]:
        say(session.console, f"grade: done before by {title}")
        write_page(run, summary, rationales, session.by_id)  # in case an earlier command ended before this
        return
    graders[0].check()
    tested = {model["name"] for model in summary["models"] if "test" in model}
    asked = [model for model in models if model.name in tested]
    engine = Recorded(run.generations)
    answers = session.ask(run, asked, session.questions.test, lambda _: engine)
    exchanges = [[exchange_of(session.wording, one) for one in mine] for mine in answers]
    everything = [one for mine in exchanges for one in mine if one is not None]
    found = judge_by_rubrics(session, graders, everything, path, again=again)
    gradings[key] = {
        "key": key,
        "judge": title,
        "rationales": len(everything),
        "missing": sum(one.missing is not None for given in found.values() for one in given.values()),
        "models": [
            {"name": model.name, **{rubric: dataclasses.asdict(grade(mine, given)) for rubric, given in found.items()}}
            for model, mine in zip(asked, exchanges, strict=True)
        ],
    }
    write_atomic(run.path / GRADES, json.dumps(list(gradings.values()), indent=2, ensure_ascii=False) + "\n")
    write_page(run, summary, rationales, session.by_id)


def grading_key(judge: JudgeConfig, graders: Sequence[OpenedJudge]) -> str:
    """Return a hash of all that decides the grades of a judge: its `OpenedJudge.key` for each rubric.

    A key that the judge gets later in the configuration counts as it is.
    """
    more = counted(judge, JUDGE)
    return digest([*(one.key for one in graders), *([more] if more else [])])


def exchange_of(wording: Wording, answered: Answered) -> Exchange | None:
    """Return what a judge reads of an answer: the rationale, with the option that it led to if one could be read.

    None if the model gave no rationale.
    """
    question, option = answered.question, answered.option
    if is_blank(answered.rationale):
        return None
    said = answered.rationale if option is None else wording.response(question, answered.rationale, option)
    return Exchange(wording.prompt(question), said)


def judge_by_rubrics(
    session: CrestSession, graders: Sequence[OpenedJudge], exchanges: Sequence[Exchange], path: Path, *, again: bool
) -> dict[str, dict[Exchange, Judgement]]:
    """Return the judgements of each exchange by the name of the rubric.

    What all of them take at a server is printed, and compared with its budget, before anything is asked. `again`
    deletes the judgements that are there, once that is done.
    """
    rubrics = [rubric.name for rubric in RATIONALE_RUBRICS]
    judges = [
        WatchedJudge(grader.load(), session.console, title=f"{grader.name}, {rubric.replace('_', ' ')}")
        for grader, rubric in zip(graders, rubrics, strict=True)
    ]
    costs = [
        judge.inner.estimate(missing_exchanges(judge, exchanges, None if again else path))
        for judge in judges
        if isinstance(judge.inner, RubricApi)
    ]
    first = judges[0].inner
    if isinstance(first, RubricApi):
        print_estimate(session.console, first.name, costs)
        first.check_budget(sum(cost.requests for cost in costs))
    if again:
        for file in (path.with_name(GRADES), path):
            delete_entry(file)
    given = [judge_missing(judge, exchanges, path) for judge in judges]
    return {rubric: dict(zip(exchanges, mine, strict=True)) for rubric, mine in zip(rubrics, given, strict=True)}


def grade(exchanges: Sequence[Exchange | None], given: Mapping[Exchange, Judgement]) -> Estimate:
    """Return the mean score of a model's rationales with its interval by question.

    A missing judgement is counted as missing, and an answer without a rationale as left out; neither enters the mean.
    """
    scores = [given[one].score for one in exchanges if one is not None]
    found = mean_with_interval(np.array([np.nan if score is None else score for score in scores]))
    return dataclasses.replace(found, left_out=exchanges.count(None))
