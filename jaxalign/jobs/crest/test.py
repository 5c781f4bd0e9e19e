"""What a tested model is measured by: accuracy, and how consistent its rationales are."""

import dataclasses
import hashlib
import json
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jaxalign.analysis.statistics import bootstrap_interval
from jaxalign.data.datasets.questions import Question, Questions
from jaxalign.data.trees import tree_length
from jaxalign.inference.shapes import SHAPES, keep_shapes, unread
from jaxalign.jobs.crest.evaluate import QUESTIONS_AT_A_TIME
from jaxalign.jobs.crest.learner import Learner, Point
from jaxalign.reasoning.answers import Answered
from jaxalign.reasoning.filtering import consistency
from jaxalign.reasoning.followups import followup_trees, judged, read_followups
from jaxalign.reasoning.rationales import Rationale
from jaxalign.runs.directory import Run
from jaxalign.runs.progress import Progress
from jaxalign.runs.records import append_record, read_records

JUDGED = "judged.jsonl"


def accuracy_of(tested: Sequence[Answered]) -> float:
    """Return the share of right answers."""
    return float(np.mean([one.right for one in tested]))


def measures(tested: Sequence[Answered]) -> dict[str, Any]:
    """Return accuracy over all questions with its interval, and the shares of second readings and of none."""
    right = [float(one.right) for one in tested]
    return {
        "accuracy": float(np.mean(right)),
        "interval": bootstrap_interval(right),
        "second_reading": float(np.mean([not one.first for one in tested])),
        "never_read": float(np.mean([one.option is None for one in tested])),
        "questions": len(tested),
    }


def examine(
    learner: Learner, run: Run, points: Sequence[Point], reported: Sequence[Point], questions: Questions, judge: Point
) -> list[dict[str, Any]]:
    """Ask all models the validation questions and those that are reported the test, and return what each came to.

    What the run's records hold is not asked again. `judge` reads the consistency of all of them.
    """
    splits = {}
    for split, asked, part in (("validation", points, questions.validation), ("test", reported, questions.test)):
        answers = learner.ask(run, asked, part)
        splits[split] = dict(zip([point.name for point in asked], answers, strict=True))
    consistencies = judge_tested(learner, run, judge, splits)
    models = []
    for point in points:
        entry: dict[str, Any] = {"name": point.name}
        for split, found in splits.items():
            if point.name in found:
                entry[split] = {**measures(found[point.name]), **consistencies[split][point.name]}
        models.append(entry)
    return models


def judge_tested(
    learner: Learner, run: Run, judge: Point, splits: Mapping[str, Mapping[str, Sequence[Answered]]]
) -> dict[str, dict[str, dict[str, Any]]]:
    """Return by split and model the consistency of the rationales that it wrote, all judged by the same model."""
    asked: dict[str, tuple[Question, dict[str, Rationale]]] = {}
    for found in splits.values():
        for one in (one for tested in found.values() for one in _readable(tested)):
            _, mine = asked.setdefault(learner.wording.prompt(one.question), (one.question, {}))
            mine.setdefault(one.rationale, _rationale(one))
    followups = _read(learner, run, judge, [(question, list(mine.values())) for question, mine in asked.values()])

    def consistency_of(tested: Sequence[Answered]) -> dict[str, Any]:
        read = [
            judged(_rationale(one), followups[_key(learner, judge, one.question, one.rationale)], one.question.gold)
            for one in _readable(tested)
        ]
        return consistency(read, {one.question.id: len(one.question.options) for one in tested})

    return {split: {name: consistency_of(tested) for name, tested in found.items()} for split, found in splits.items()}


def _readable(tested: Sequence[Answered]) -> list[Answered]:
    return [one for one in tested if one.option is not None and one.rationale]


def _rationale(one: Answered) -> Rationale:
    return Rationale(one.question.id, one.rationale, 1, (), one.option, one.right)


def _key(learner: Learner, judge: Point, question: Question, text: str) -> str:
    """Return the name of a judgement: 32 hexadecimal digits of a SHA-256 over what decides it inside a run."""
    parts = [learner.base_identity, judge.identity, learner.wording.prompt(question), text]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]


def _read(
    learner: Learner, run: Run, judge: Point, asked: Sequence[tuple[Question, Sequence[Rationale]]]
) -> dict[str, list[tuple[float, float]]]:
    """Return by key the follow-ups of every rationale; what judged.jsonl holds is not read again.

    A question's rationales are read together, whoever wrote them, and questions in parts whose borders never move, so
    that a resumption packs as an unbroken run does.
    """
    records = read_records(run.path / JUDGED)
    known = {record["key"]: [(pair["affirm"], pair["deny"]) for pair in record["followups"]] for record in records}
    parts = [asked[first : first + QUESTIONS_AT_A_TIME] for first in range(0, len(asked), QUESTIONS_AT_A_TIME)]
    keys = [[_key(learner, judge, question, one.text) for question, mine in part for one in mine] for part in parts]
    missing, shapes = unread(run.path / SHAPES, keys, known)
    if not missing:
        return known
    scorer = dataclasses.replace(learner.base.scorer(judge.weights, learner.scale), shapes=shapes)
    waiting = sum(len(parts[number]) for number in missing)
    done, tokens, since = 0, 0, time.perf_counter() - scorer.programs.seconds
    with Progress(learner.console) as progress:
        count = progress.samples("judging", "question")
        count(0, waiting, 0.0)
        for number in missing:
            questions, given = zip(*parts[number], strict=True)
            labels = [question.gold for question in questions]
            read = read_followups(scorer, questions, given, labels, learner.encoder, learner.wording, everyone=True)
            fresh = []
            for key, one in zip(keys[number], (one for mine in read for one in mine), strict=True):
                if key not in known:
                    known[key] = list(one.followups)
                    pairs = [{"affirm": affirm, "deny": deny} for affirm, deny in one.followups]
                    fresh.append({"key": key, "question": one.question, "text": one.text, "followups": pairs})
            keep_shapes(run.path / SHAPES, keys[number][-1], shapes)
            append_record(run.path / JUDGED, *fresh)
            for question, mine in parts[number]:
                tokens += sum(map(tree_length, followup_trees(question, mine, learner.encoder, learner.wording)[0]))
            done += len(questions)
            count(done, waiting, tokens / (time.perf_counter() - scorer.programs.seconds - since))
    return known
