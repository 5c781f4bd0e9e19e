"""The files of lm-evaluation-harness that a report reads (`ability=`), and which of its models they are of."""

import glob
from collections.abc import Mapping, Sequence
from pathlib import Path

from jaxalign.errors import UserError, without_home
from jaxalign.safety.collection import HarmRun
from jaxalign.safety.task_results import TaskFigure, TaskResults, read_task_results
from jaxalign.safety.task_tables import TaskScores, base_hash


def task_scores(pattern: str, runs: Sequence[HarmRun]) -> tuple[TaskScores, list[str]]:
    """Return the results of the models of some runs, and a line for each file or task that is left aside.

    A model is known by the hashes of its base and of its adapter, which count the scale, so paths need not be the same.
    Of two results of one task, the later one is taken. Beside each adapter stands the base's result that was asked as
    the adapter's was; of several such results, or if there is none, the latest.

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


def _chosen(known: Sequence[TaskResults]) -> tuple[TaskScores, list[str]]:
    """Return the latest figures of each adapter with the base's, and a line for each file with results left aside."""
    by_task: dict[tuple[tuple[str, str], str], list[TaskResults]] = {}
    for results in sorted(known, key=lambda one: (one.date, one.path), reverse=True):
        for task in dict.fromkeys(figure.task for figure in results.figures):
            by_task.setdefault((results.key, task), []).append(results)
    scores: dict[tuple[str, str], dict[tuple[str, str], tuple[TaskFigure, TaskFigure | None]]] = {}
    used: dict[tuple[tuple[str, str], str], list[TaskResults]] = {}
    for ((base, adapter), task), some in by_task.items():
        if adapter:
            mine, theirs = some[0], by_task.get(((base, ""), task), [])
            alike = [one for one in theirs if one.conditions(task) == mine.conditions(task)]
            beside = (alike or theirs)[:1]
            used.setdefault(((base, adapter), task), []).append(mine)
            used.setdefault(((base, ""), task), []).extend(beside)
            before = {one.metric: one for results in beside for one in results.figures if one.task == task}
            figures = {(task, one.metric): (one, before.get(one.metric)) for one in mine.figures if one.task == task}
            scores.setdefault((base, adapter), {}).update(figures)
    return scores, _left_aside(by_task, used)


def _left_aside(
    by_task: Mapping[tuple[tuple[str, str], str], Sequence[TaskResults]],
    used: Mapping[tuple[tuple[str, str], str], Sequence[TaskResults]],
) -> list[str]:
    """Return a line for each file with results that no figure is taken from, though others of the same model are."""
    aside: dict[tuple[str, str], list[str]] = {}
    for (model, task), some in by_task.items():
        mine = used.get((model, task)) or some[:1]  # of a base that stands beside no adapter, the latest
        for one in (one for one in some if one not in mine):
            before = [other for other in mine if some.index(other) < some.index(one)]
            alike = [other for other in before if other.conditions(task) == one.conditions(task)]
            later = next(iter([*alike, *before]), None)
            why = "has later ones" if later else "has those that were asked as the adapters' were"
            aside.setdefault((one.path, f"{without_home((later or mine[0]).path)} {why}"), []).append(task)
    return [
        f"ability: {without_home(path)}: its results of {', '.join(sorted(tasks))} are left aside, because {why}"
        for (path, why), tasks in aside.items()
    ]
