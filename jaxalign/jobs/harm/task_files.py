"""The files of lm-evaluation-harness that a report reads (`ability=`), and which of its models they are of."""

import glob
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jaxalign.errors import UserError
from jaxalign.runs.records import without_home
from jaxalign.safety.collection import HarmRun
from jaxalign.safety.task_results import TaskFigure, TaskResults, read_task_results
from jaxalign.safety.task_tables import TaskScores, base_hash


def task_scores(pattern: str, runs: Sequence[HarmRun]) -> tuple[TaskScores, list[str]]:
    """Return the results of the models of some runs, and a line for each file or task that is left aside.

    A model is known by the hashes of its base and of its adapter, which count the scale, so paths need not be the same.
    Of two results of one task, the later one is taken. Of two of a base, it is the one that was asked as more of the
    adapters on it were; if that is the same, the later one.

    Args:
        pattern: a file, a folder (its results_*.json, and those of the folders below), or a pattern of such paths.
        runs: the runs of the report.

    Raises:
        UserError: no file is found, or one is not what lm-eval writes.
    """
    bases = {base_hash(str(run.summary["model"]["signature"])) for run in runs}
    adapters = {
        (base_hash(str(run.summary["model"]["signature"])), adapter)
        for run in runs
        for adapter in ("", *(str(about["adapter"]) for about in run.summary["models"]))
    }
    known, aside = [], []
    for path in results_files(pattern):
        results = read_task_results(path)
        if isinstance(results, str):
            why = results
        elif results.base not in bases:
            why = "it is of another base, or of a base that is stored in another way"
        elif results.key not in adapters:
            why = "no run of the report asked its adapter at this scale"
        else:
            known.append(results)
            continue
        aside.append(f"ability: {without_home(str(path))} is left aside: {why}")
    scores, unused = _chosen(known)
    return scores, [*aside, *unused]


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


def _chosen(known: Sequence[TaskResults]) -> tuple[dict[tuple[str, str], dict[tuple[str, str], TaskFigure]], list[str]]:
    """Return one result of each task of each model, and a line for each file with results that are left aside."""
    by_task: dict[tuple[tuple[str, str], str], list[TaskResults]] = {}
    for results in sorted(known, key=lambda one: (one.date, one.path), reverse=True):
        for task in dict.fromkeys(figure.task for figure in results.figures):
            by_task.setdefault((results.key, task), []).append(results)
    scores: dict[tuple[str, str], dict[tuple[str, str], TaskFigure]] = {}
    aside: dict[tuple[str, str], list[str]] = {}
    asked: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    # The adapters come first, because the base's result is chosen by theirs.
    for ((base, adapter), task), some in sorted(by_task.items(), key=lambda pair: pair[0][0][1] == ""):
        theirs = asked.setdefault((base, task), [])
        alike = [0 if adapter else theirs.count(one.asked(task)) for one in some]
        best = some[alike.index(max(alike))]  # of the same number, the latest
        theirs += [best.asked(task)] if adapter else []
        figures = {(one.task, one.metric): one for one in best.figures if one.task == task}
        scores.setdefault((base, adapter), {}).update(figures)
        for one, number in zip(some, alike, strict=True):
            if one is not best:
                why = "has those that were asked as the adapters' were" if number < max(alike) else "has later ones"
                aside.setdefault((one.path, f"{without_home(best.path)} {why}"), []).append(task)
    return scores, [
        f"ability: {without_home(path)}: its results of {', '.join(sorted(tasks))} are left aside, because {why}"
        for (path, why), tasks in aside.items()
    ]
