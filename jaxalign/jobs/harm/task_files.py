"""The files of lm-evaluation-harness that a report reads (`ability=`), and which of its models they are of."""

import glob
from collections.abc import Sequence
from pathlib import Path

from jaxalign.errors import UserError
from jaxalign.runs.records import without_home
from jaxalign.safety.collection import HarmRun
from jaxalign.safety.task_results import TaskFigure, TaskResults, read_task_results
from jaxalign.safety.task_tables import TaskScores


def task_scores(pattern: str, runs: Sequence[HarmRun]) -> tuple[TaskScores, list[str]]:
    """Return the results of the models of some runs, and a line for each file or task that is left aside.

    A model is known by the hashes of its base and of its adapter, which count the scale, so paths need not be the same.
    Of two results of one task, the later one is taken.

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


def _latest(known: Sequence[TaskResults]) -> tuple[dict[str, dict[tuple[str, str], TaskFigure]], list[str]]:
    scores: dict[str, dict[tuple[str, str], TaskFigure]] = {}
    taken: dict[tuple[str, str], str] = {}
    aside = []
    for results in sorted(known, key=lambda one: (one.date, one.path), reverse=True):
        mine, here = scores.setdefault(results.adapter, {}), {figure.task for figure in results.figures}
        repeated = sorted(task for task in here if (results.adapter, task) in taken)
        if repeated:
            later = without_home(taken[results.adapter, repeated[0]])
            line = f"ability: {without_home(results.path)}: {', '.join(repeated)} left aside: run later in {later}"
            aside.append(line)
        for figure in results.figures:
            if figure.task not in repeated:
                mine[figure.task, figure.metric] = figure
        taken |= {(results.adapter, task): results.path for task in here if task not in repeated}
    return scores, aside
