"""stage=test: the models answer the validation and the test questions, and the report is written.

All models answer the validation questions. The test questions are answered by all but the rounds of preference
optimisation that are not the best one. A model is measured by its accuracy and by the consistency of its rationales.
"""

import dataclasses
import os
import time
from collections.abc import Mapping, Sequence
from typing import Any

from jaxalign.data.datasets.question import Question
from jaxalign.data.trees import tree_length
from jaxalign.errors import without_home
from jaxalign.inference.shapes import SHAPES, keep_shapes, unread
from jaxalign.jobs.crest.evaluate import QUESTIONS_AT_A_TIME, RATIONALES, read_rationales
from jaxalign.jobs.crest.preferences import PAIRS
from jaxalign.jobs.crest.report import GRADES, write_report
from jaxalign.jobs.crest.session import CrestSession
from jaxalign.jobs.harm.judge import JUDGEMENTS
from jaxalign.models.adapter import Adapter
from jaxalign.parallel.distributed import by_first, stoppable
from jaxalign.reasoning.answers import Answered, measures
from jaxalign.reasoning.filtering import consistency
from jaxalign.reasoning.followups import followup_trees, judged, read_followups
from jaxalign.reasoning.rationales import Rationale
from jaxalign.runs.directory import GENERATIONS, Run
from jaxalign.runs.progress import Progress
from jaxalign.runs.records import append_record, digest, read_records, write_atomic
from jaxalign.runs.stages import SESSIONS

JUDGED = "judged.jsonl"

CREST_FILES = (
    *(GENERATIONS, JUDGED, SHAPES, RATIONALES, PAIRS, "adapter", "figures", SESSIONS),
    *("table.csv", "table.md", "report.md", GRADES, JUDGEMENTS),
)


def do_test_stage(
    session: CrestSession, run: Run, models: Sequence[Adapter], judge: Adapter, evaluated: Run | None
) -> None:
    """Ask all models, and write the results: the report, the tables, the figures, the final adapter and the summary.

    Args:
        session: the model and the settings.
        run: the whole run, not a stage of it.
        models: the base, and the adapters that the stages ended with.
        judge: the adapter that judges the rationales of all models.
        evaluated: the run of the last stage=evaluate; None if there was none.
    """
    found = {name: stage for name, stage in session.stages.found.items() if stage.finished}
    stages = {name: {"path": os.path.relpath(stage.path, run.path), **stage.results()} for name, stage in found.items()}
    best = stages.get("dpo", {}).get("best_round")
    reported = [one for one in models if not one.name.startswith("round") or one.name == f"round {best}"]
    with session.stages.timed(run) as took:
        # The answers that sft and dpo asked for are not drawn again.
        before = {
            record["key"]: record
            for name, stage in found.items()
            if name.partition("-")[0] in ("sft", "dpo")
            for record in read_records(stage.generations, key=str)
        }
        known = {record["key"] for record in read_records(run.generations, key=str)}
        append_record(run.generations, *(record for key, record in before.items() if key not in known))
        measured = measure_models(session, run, models, reported, judge)
    drawn = read_records(run.generations, key=str, tokens=int)
    tokens = sum(record["tokens"] for record in drawn if record["key"] not in before)
    stages["test"] = {"path": ".", "tokens": tokens, **took}
    by_first(lambda: write_crest_results(session, run, reported, measured, stages, judge, evaluated))


def write_crest_results(
    session: CrestSession,
    run: Run,
    reported: Sequence[Adapter],
    measured: Sequence[Mapping[str, Any]],
    stages: Mapping[str, Mapping[str, Any]],
    judge: Adapter,
    evaluated: Run | None,
) -> None:
    """Write the report, the final adapter with its card, and then the summary, which marks the run as finished.

    Args:
        session: the model and the settings.
        run: the whole run.
        reported: the models that answered the test; the last one with an adapter is the final one.
        measured: the measures of all models (see `measure_models`).
        stages: the summaries of all stages by their names.
        judge: the adapter that judged.
        evaluated: the run of the last stage=evaluate; None if there was none.
    """
    final = next((one for one in reversed(reported) if one.params is not None), None)
    for name, source in ((RATIONALES, evaluated), (PAIRS, session.stages.found.get("preferences"))):
        if source is not None and (source.path / name).exists():
            write_atomic(run.path / name, (source.path / name).read_bytes())
    questions, model = session.questions, session.base.model
    summary = {
        "dataset": questions.name,
        "questions": {part: len(getattr(questions, part)) for part in ("train", "validation", "test")},
        "notes": [without_home(note) for note in questions.notes],
        "model": {"name": model.name, "identity": model.identity},
        "attention": session.base.attention,
        "asked": session.questions_hash("validation", "test"),
        "judge": judge.name,
        "judge_identity": judge.identity,
        "models": measured,
        "stages": stages,
        "compilation_seconds": sum(stage["compilation_seconds"] for stage in stages.values()),
        "final": None if final is None else final.name,
    }
    if final is not None:
        session.write(run.adapter, final, summary)
    rationales = {} if evaluated is None else read_rationales(evaluated, questions.train)
    write_report(run, summary, rationales, session.by_id)
    run.finish(summary)


def measure_models(
    session: CrestSession, run: Run, everyone: Sequence[Adapter], reported: Sequence[Adapter], judge: Adapter
) -> list[dict[str, Any]]:
    """Return the measures of each model on validation and, if it is reported, on the test.

    Answers that the run's records hold are not drawn again.

    Args:
        session: the model and the settings.
        run: the whole run.
        everyone: all models, which answer the validation questions.
        reported: the models that also answer the test questions.
        judge: the adapter that judges the rationales of all models.
    """
    questions, splits = session.questions, {}
    for split, asked, part in (("validation", everyone, questions.validation), ("test", reported, questions.test)):
        answers = session.ask(run, asked, part)
        splits[split] = dict(zip([model.name for model in asked], answers, strict=True))
    consistencies = judge_answers(session, run, judge, splits)
    models = []
    for model in everyone:
        entry: dict[str, Any] = {"name": model.name}
        for split, found in splits.items():
            if model.name in found:
                entry[split] = {**measures(found[model.name]), **consistencies[split][model.name]}
        models.append(entry)
    return models


def judge_answers(
    session: CrestSession, run: Run, judge: Adapter, splits: Mapping[str, Mapping[str, Sequence[Answered]]]
) -> dict[str, dict[str, dict[str, Any]]]:
    """Return the consistency of the rationales that each model wrote, by split and model.

    Args:
        session: the model and the settings.
        run: the whole run, which records the judgements in judged.jsonl.
        judge: the adapter that judges all rationales.
        splits: the answers by split and model.
    """
    asked: dict[str, tuple[Question, dict[str, Rationale]]] = {}
    for found in splits.values():
        for one in (one for tested in found.values() for one in _readable(tested)):
            _, mine = asked.setdefault(session.wording.prompt(one.question), (one.question, {}))
            mine.setdefault(one.rationale, _rationale(one))
    followups = _read(session, run, judge, [(question, list(mine.values())) for question, mine in asked.values()])

    def consistency_of(tested: Sequence[Answered]) -> dict[str, Any]:
        read = [
            judged(_rationale(one), followups[_key(session, judge, one.question, one.rationale)], one.question.gold)
            for one in _readable(tested)
        ]
        return consistency(read, {one.question.id: len(one.question.options) for one in tested})

    return {split: {name: consistency_of(tested) for name, tested in found.items()} for split, found in splits.items()}


def _readable(tested: Sequence[Answered]) -> list[Answered]:
    return [one for one in tested if one.option is not None and one.rationale]


def _rationale(one: Answered) -> Rationale:
    return Rationale(one.question.id, one.rationale, 1, (), one.option, one.right)


def _key(session: CrestSession, judge: Adapter, question: Question, text: str) -> str:
    """Return the key of a judgement: 32 hexadecimal digits of a SHA-256 over all that decides it inside a run."""
    parts = [session.base.signature, judge.identity, session.wording.prompt(question), text]
    return digest(parts, 32)


def _read(
    session: CrestSession, run: Run, judge: Adapter, asked: Sequence[tuple[Question, Sequence[Rationale]]]
) -> dict[str, list[tuple[float, float]]]:
    """Return the follow-ups of every rationale by its key; those that judged.jsonl holds are not read again.

    The rationales of a question are read together, whichever models wrote them. The questions are read in parts of a
    fixed size, so that a resumed run packs them as an uninterrupted run does.
    """
    records = read_records(run.path / JUDGED, key=str, followups=list)
    known = {record["key"]: [(pair["affirm"], pair["deny"]) for pair in record["followups"]] for record in records}
    parts = [asked[first : first + QUESTIONS_AT_A_TIME] for first in range(0, len(asked), QUESTIONS_AT_A_TIME)]
    keys = [[_key(session, judge, question, one.text) for question, mine in part for one in mine] for part in parts]
    missing, shapes = unread(run.path / SHAPES, keys, known)
    if not missing:
        return known
    scorer = dataclasses.replace(session.scorer(judge), shapes=shapes)
    waiting = sum(len(parts[number]) for number in missing)
    done, tokens, since = 0, 0, time.perf_counter() - scorer.programs.seconds
    with Progress(session.console) as progress:
        count = stoppable(progress.samples("judging", "question"))
        count(0, waiting, 0.0)
        for number in missing:
            questions, given = zip(*parts[number], strict=True)
            labels = [question.gold for question in questions]
            read = read_followups(scorer, questions, given, labels, session.encoder, session.wording, everyone=True)
            fresh = []
            for key, one in zip(keys[number], (one for mine in read for one in mine), strict=True):
                if key not in known:
                    known[key] = list(one.followups)
                    pairs = [{"affirm": affirm, "deny": deny} for affirm, deny in one.followups]
                    fresh.append({"key": key, "question": one.question, "text": one.text, "followups": pairs})
            keep_shapes(run.path / SHAPES, keys[number][-1], shapes)
            append_record(run.path / JUDGED, *fresh)
            for question, mine in parts[number]:
                tokens += sum(map(tree_length, followup_trees(question, mine, session.encoder, session.wording)[0]))
            done += len(questions)
            count(done, waiting, tokens / (time.perf_counter() - scorer.programs.seconds - since))
    return known
