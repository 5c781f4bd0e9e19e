"""What a tested model is measured by: accuracy, and how consistent its rationales are."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jaxalign.analysis.statistics import bootstrap_interval
from jaxalign.data.datasets.questions import Questions
from jaxalign.reasoning.followups import read_followups
from jaxalign.reasoning.learner import Learner, Point
from jaxalign.reasoning.rationales import Rationale
from jaxalign.reasoning.selection import consistency
from jaxalign.reasoning.testing import Tested
from jaxalign.runs import Run


def accuracy_of(tested: Sequence[Tested]) -> float:
    """Return the share of right answers."""
    return float(np.mean([one.right for one in tested]))


def measures(tested: Sequence[Tested]) -> dict[str, Any]:
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
    judged = {split: judge_tested(learner, judge, found) for split, found in splits.items()}
    models = []
    for point in points:
        entry: dict[str, Any] = {"name": point.name}
        for split, found in splits.items():
            if point.name in found:
                entry[split] = {**measures(found[point.name]), **judged[split][point.name]}
        models.append(entry)
    return models


def judge_tested(learner: Learner, judge: Point, found: Mapping[str, Sequence[Tested]]) -> dict[str, dict[str, Any]]:
    """Return the consistency of the rationales that models wrote in the test, all judged by the same model."""
    names, questions, given = [], [], []
    for name, tested in found.items():
        for one in tested:
            names.append(name)
            questions.append(one.question)
            read = one.option is not None and bool(one.rationale)
            rationale = Rationale(one.question.id, one.rationale, 1, (), one.option, one.right if read else None)
            given.append([rationale if read else dataclasses.replace(rationale, prediction=None)])
    scorer = learner.base.scorer(judge.weights, learner.scale)
    labels: list[int | None] = [question.gold for question in questions]
    read = read_followups(scorer, questions, given, labels, learner.encoder, learner.wording, everyone=True)
    options = {question.id: len(question.options) for question in questions}
    return {
        name: consistency([mine[0] for one, mine in zip(names, read, strict=True) if one == name], options)
        for name in found
    }
