"""The files of lm-evaluation-harness that a report reads (`ability=`), and which of its models they are of."""

import glob
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jaxalign.errors import UserError
from jaxalign.runs.records import without_home
from jaxalign.safety.collection import HarmRun
from jaxalign.safety.task_results import TaskFigure, TaskResults, read_task_results
from jaxalign.safety.task_tables import OfModel, TaskScores


def task_scores(pattern: str, runs: Sequence[HarmRun]) -> tuple[TaskScores, list[str]]:
    """Return the results of the models of some runs, and a line for each file or task that is left aside.

    A model is known by the hashes of its base and of its adapter, which count the scale, so paths need not be the same.
    Of two results of one task, the later one is taken; of a base, both are kept if they were asked in different ways.

    Args:
        pattern: a file, a folder (its results_*.json, and those of the folders below), or a pattern of such paths.
        runs: the runs of the report.

    Raises:
        UserError: no file is found, or one is not what lm-eval writes.
    """
    bases = {str(run.summary["model"]["signature"]).rpartition("-")[0] for run in runs}
    adapters = {str(about["adapter"]) for run in runs for about in run.summary["models"]} | {""}
    known, aside = [], []
    for path in results_files(pattern):
        results = read_task_results(path)
        if isinstance(results, str):
            why = results
        elif results.base not in bases:
            why = "it is of another base, or of a base that is stored in another way"
        elif results.adapter not in adapters:
            why = "no run of the report asked its adapter at this scale"
        else:
            known.append(results)
            continue
        aside.append(f"ability: {without_home(str(path))} is left aside: {why}")
    scores, older = _latest(known)
    return scores, [*aside, *older]


def results_files(pattern: str) -> list[Path]:
    """Return the files that a file's name, a folder's name or a pattern of names leads to, each once, in order.

    Raises:
        UserError: there is none.
    """
    named = [Path(pattern)] if Path(pattern).exists() else [Path(one) for one in glob.glob(pattern, recursive=True)]
    found = [path for one in named for path in (one.rglob("results_*.json") if one.is_dir() else [one])]
    if not found:
        hint = "give a file or a folder that lm_eval --output_path has written (results_*.json)"
        raise UserError(f"ability={pattern} finds no results of lm-eval: {hint}")
    return sorted(set(found))


def _latest(known: Sequence[TaskResults]) -> tuple[TaskScores, list[str]]:
    scores: dict[OfModel, dict[tuple[str, str], list[TaskFigure]]] = {}
    taken: dict[tuple[OfModel, str], list[tuple[Mapping[str, Any], str]]] = {}
    aside = []
    for results in sorted(known, key=lambda one: (one.date, one.path), reverse=True):
        model, repeated = (results.base, results.adapter), {}
        for task, asked in {figure.task: figure.asked for figure in results.figures}.items():
            before = taken.setdefault((model, task), [])
            # An adapter may have been asked as an earlier result of its base was, so those of a base stay.
            later = next((path for how, path in before if results.adapter or how == asked), None)
            if later is None:
                before.append((asked, results.path))
            else:
                repeated[task] = later
        if repeated:
            where = without_home(next(iter(repeated.values())))
            tasks = ", ".join(sorted(repeated))
            told = f"its results of {tasks} are left aside, because {where} has later ones"
            aside.append(f"ability: {without_home(results.path)}: {told}")
        mine = scores.setdefault(model, {})
        for figure in results.figures:
            if figure.task not in repeated:
                mine.setdefault((figure.task, figure.metric), []).append(figure)
    return scores, aside
