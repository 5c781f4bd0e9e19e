"""stage=judge: judges read the responses of one model, without that model."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jaxalign.config.identity import counted
from jaxalign.errors import UserError
from jaxalign.jobs.asked import AskedModel
from jaxalign.jobs.harm.dictionary import DICTIONARY_FILE
from jaxalign.jobs.harm.generate import read_responses
from jaxalign.jobs.harm.judged_file import FIRST_KEYS, JUDGED_FILE
from jaxalign.jobs.harm.judges import HarmJudges
from jaxalign.jobs.harm.keys import JUDGE
from jaxalign.jobs.harm.loaded_judges import LoadedJudges, print_estimate, why_none
from jaxalign.jobs.harm.session import HarmSession
from jaxalign.jobs.harm.text_values import text_values
from jaxalign.parallel.distributed import by_first
from jaxalign.runs.directory import Run
from jaxalign.runs.records import write_records
from jaxalign.runs.stages import StageSpec
from jaxalign.safety.benchmarks.benchmark import BenchmarkPrompt, cut_response
from jaxalign.safety.judgements import (
    TOO_LONG,
    Exchange,
    Judgement,
    missing_exchanges,
)
from jaxalign.safety.judges.api import RubricApi
from jaxalign.safety.judges.probe import ProbeJudge
from jaxalign.safety.starter_prompts import QUESTION
from jaxalign.safety.states import NOT_JUDGED, SPOKEN, STATES, answer_state, is_blank
from jaxalign.safety.value_probe import shipped_value_probe

JUDGEMENTS = "judgements.jsonl"
JUDGE_STAGE = StageSpec(files=(JUDGED_FILE, JUDGEMENTS, DICTIONARY_FILE), records=(JUDGED_FILE,))


def judge_identity(session: HarmSession, model: AskedModel, judges: HarmJudges) -> dict[str, Any]:
    """Return all that decides the judgements of a model's responses."""
    c = session.config
    more = counted(c.judge, JUDGE)
    # A judge of refusals is always measured; that it was not in older runs does not make their judgements others.
    calibrated = c.judge.labels is not None or (c.judge.calibrate and any(one.about_harm for one in judges.everyone))
    return {
        "generate": session.identity(model),
        "cut": c.harm.cut,
        "calibrate": [calibrated, judges.labels.hash],
        **judges.content,
        **({"judge": more} if more else {}),
    }


def unjudged(session: HarmSession, model: AskedModel, judges: HarmJudges) -> Run | None:
    """Return the run in which this command judges the responses of a model; None if it judges none of them."""
    c = session.config
    if c.stage not in ("all", "judge"):
        return None
    run = session.stages(model).run_of("judge", judge_identity(session, model, judges))
    done = run.finished and not c.run.overwrite and not run.results().get("again")
    return None if done else run


def check_cost(session: HarmSession, generated: Sequence[tuple[AskedModel, Run]], loaded: LoadedJudges) -> None:
    """Print what all judgements take that are missing at a server, before anything is asked there.

    They are those of all models in all rounds (`judge.repeat`), and those of labelled responses.

    Args:
        session: the command.
        generated: the models, each with its run of stage=generate.
        loaded: the judges.

    Raises:
        UserError: they take more requests than `judge.max_requests`.
    """
    judges, c = loaded.opened, session.config
    one = judges.harm.get("rubric_api")
    left = [] if one is None else [(model, run, unjudged(session, model, judges)) for model, run in generated]
    left = [(model, run, mine) for model, run, mine in left if mine is not None]
    if one is None or not left:
        return
    judge = loaded.load(one)
    assert isinstance(judge, RubricApi)
    rows, path = loaded.measuring(one)
    costs = [judge.estimate(missing_exchanges(judge, [row.exchange for row in rows], path))]
    for model, run, mine in left:
        responses = _read(session, model, run)
        exchanges = [responses[n].exchange for n in _judged_by(one.name, responses, judges)]
        path = None if c.run.overwrite else mine.path / JUDGEMENTS
        rounds = (dataclasses.replace(judge, number=number) for number in range(c.judge.repeat))
        costs += [judge.estimate(missing_exchanges(one_round, exchanges, path)) for one_round in rounds]
    if requests := sum(cost.requests for cost in costs):
        print_estimate(session.console, judge.name, costs)
        judge.check_budget(requests)


def judge_stage(session: HarmSession, model: AskedModel, generated: Run, loaded: LoadedJudges) -> Run | None:
    """Judge the responses of a model; None if the command stops before this stage.

    Of an earlier run of this stage only missing judgements are asked for again.

    Raises:
        UserError: a judge cannot judge; see `Stages.do`, too.
    """
    stages, identity = session.stages(model), judge_identity(session, model, loaded.opened)

    def begin_again() -> None:
        before = unjudged(session, model, loaded.opened)
        if before is not None and before.finished and not session.config.run.overwrite:
            before.summary.unlink()

    by_first(begin_again)
    return stages.do("judge", JUDGE_STAGE, identity, lambda run: _judge(session, model, generated, loaded, run))


@dataclasses.dataclass(frozen=True)
class _Response:
    """A response of a model; `text` is the part that is judged, None if a server did not end it well."""

    prompt: BenchmarkPrompt
    sample: int
    key: str
    text: str | None

    @property
    def says_something(self) -> bool:
        return self.text is not None and not is_blank(self.text)

    @property
    def exchange(self) -> Exchange:
        return Exchange(self.prompt.text, str(self.text))


def _judge(session: HarmSession, model: AskedModel, generated: Run, loaded: LoadedJudges, run: Run) -> dict[str, Any]:
    """Judge the responses of a model for harm and for refusals, write the judged ones, and return the summary."""
    judges, responses = loaded.opened, _read(session, model, generated)
    harm, moved = _judge_harm(session, model.name, responses, loaded, run.path / JUDGEMENTS)
    refusals = _judge_refusals(responses, loaded, run.path / JUDGEMENTS)
    states = [
        NOT_JUDGED if one.text is None else answer_state(one.text, harm.get(n), refusals.get(n))
        for n, one in enumerate(responses)
    ]
    each = enumerate(zip(responses, states, strict=True))
    lines = [_line(one, judges.judge_of(one.prompt), harm.get(n), state) for n, (one, state) in each]
    write_records(run.path / JUDGED_FILE, lines)
    measured = [loaded.calibration(one, "harm") for one in judges.harm.values()]
    if judges.refusal is not None:
        measured.append(loaded.calibration(judges.refusal, "refusal"))
    return {
        "states": {str(state): states.count(state) for state in STATES},
        "text_values": _carried(loaded, responses, states),
        "judges": measured,
        # A server may answer the next time; another judge would say the same again.
        "again": "rubric_api" in judges.harm and sum(one.missing is not None for one in harm.values()),
        "moved": moved,
    }


def _read(session: HarmSession, model: AskedModel, generated: Run) -> list[_Response]:
    """Return the responses of a model in the order of the prompts, each cut as `benchmark.cut` says."""
    cut = session.config.harm.cut
    return [
        _Response(prompt, number, key, None if text is None else cut_response(text, cut))
        for prompt, samples in zip(session.covered_prompts, read_responses(session, model, generated), strict=True)
        for number, (key, text) in enumerate(samples)
    ]


def _judged_by(judge: str, responses: Sequence[_Response], judges: HarmJudges) -> list[int]:
    """Return the numbers of the responses that a judge of harm is asked about."""
    return [n for n, one in enumerate(responses) if one.says_something and judges.judge_of(one.prompt) == judge]


def _judge_harm(
    session: HarmSession, model: str, responses: Sequence[_Response], loaded: LoadedJudges, path: Path
) -> tuple[dict[int, Judgement], dict[str, Any] | None]:
    """Return the judgements of harm by the numbers of a model's responses, and how far they move (see `repeated`)."""
    judges, repeat = loaded.opened, session.config.judge.repeat
    found: dict[int, Judgement] = {}
    moved = None
    for name, one in judges.harm.items():
        mine = _judged_by(name, responses, judges)
        exchanges = [responses[n].exchange for n in mine]
        found |= dict(zip(mine, loaded.missing(one, exchanges, path), strict=True))
        judge = loaded.load(one)
        if repeat > 1 and isinstance(judge, RubricApi):
            moved = loaded.repeated(judge, exchanges, path)
        check_judged(name, model, [found[n] for n in mine])
    return found, moved


def _judge_refusals(responses: Sequence[_Response], loaded: LoadedJudges, path: Path) -> dict[int, Judgement]:
    """Return the judgements of refusals by the numbers of the responses; only answers to questions can refuse."""
    judge = loaded.opened.refusal
    if judge is None:
        return {}
    mine = [n for n, one in enumerate(responses) if one.says_something and one.prompt.form == QUESTION]
    return dict(zip(mine, loaded.missing(judge, [responses[n].exchange for n in mine], path), strict=True))


def _line(one: _Response, judge: str, judgement: Judgement | None, state: str) -> dict[str, Any]:
    """Return the line of a response in the judged file; `judgement` says how harmful it is."""
    return {
        **dict(zip(FIRST_KEYS, (one.prompt.id, one.prompt.category), strict=True)),
        "group": one.prompt.group,
        "sample": one.sample,
        "key": one.key,
        "judge": judge,
        "score": None if judgement is None else judgement.score,
        "label": None if judgement is None else judgement.label,
        "missing": None if judgement is None else judgement.missing,
        "state": state,
    }


def check_judged(judge: str, model: str, given: Sequence[Judgement]) -> None:
    """Raise UserError if a judge has judged none of a model's responses, though they are not too long for it.

    A table of dashes would look like a result. What the judge said is recorded, and asked for again.
    """
    reasons = why_none(given)
    if not reasons or set(reasons) == {TOO_LONG}:
        return
    reason, times = reasons.most_common(1)[0]
    raise UserError(
        f"{judge} judged none of the {len(given):,} responses of {model} that say something ({times:,}: {reason}): "
        "mend the judge's settings (judge.path, judge.model, ...) or choose another judge, and type the command again"
    )


def _carried(loaded: LoadedJudges, responses: Sequence[_Response], states: Sequence[str]) -> dict[str, Any] | None:
    """Return which values those responses carry (see `text_values`) that a probe judged."""
    judges = loaded.opened
    probes = {one.name: judge for one in judges.everyone if isinstance(judge := loaded.load(one), ProbeJudge)}
    refusals = judges.refusal is not None and judges.refusal.name in probes
    exchanges = [
        one.exchange
        for one, state in zip(responses, states, strict=True)
        if state in SPOKEN and (judges.judge_of(one.prompt) in probes or (refusals and one.prompt.form == QUESTION))
    ]
    return text_values(next(iter(probes.values())).reader, exchanges, shipped_value_probe()) if exchanges else None
