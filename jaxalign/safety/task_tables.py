"""What models can do in tasks of lm-evaluation-harness, beside the base: a table, and one figure for each model."""

import dataclasses
import math
from collections.abc import Mapping, Sequence

from jaxalign.analysis.data_tables import Cell, DataTable
from jaxalign.analysis.estimates import Estimate
from jaxalign.safety.collection import ADAPTER_METHOD, Collection, ReportedModel
from jaxalign.safety.report_tables import Tags, model_tags
from jaxalign.safety.task_results import TaskFigure

OfModel = tuple[str, str]
"""The hashes of a base and of an adapter on it, "" for the base alone."""

TaskScores = Mapping[OfModel, Mapping[tuple[str, str], Sequence[TaskFigure]]]
"""By the model and by (task, metric): the figures, the latest first, which differ in how they were asked."""

_NORMAL = 1.96
"""So many standard errors on each side of a figure give its 95 % interval."""

_NONE = "Where all or none is right, lm-eval gives a standard error of 0, which says nothing."
_INDEPENDENT = (
    "Standard error of the difference: as if the two figures were independent. Base and adapter answered the same "
    "questions, so the true one is mostly smaller."
)


def tasks_table(found: Collection, name: str, scores: TaskScores) -> DataTable | None:
    """Return each adapter's figures in tasks, those of the base, and the differences; None if no adapter has any."""
    rows: list[list[Cell]] = []
    tags: list[Tags] = []
    for model in found.under():
        for figure, before in _compared(model, scores).values():
            change = task_difference(figure, before)
            error = None if before is None or change.estimate is None else _error(figure, before)
            better = "" if figure.higher is None else "higher" if figure.higher else "lower"
            shown = [None if before is None else _estimate(before), _estimate(figure), change, error]
            rows.append([figure.task, figure.metric, better, model.title, *shown, figure.n, change.reason or ""])
            tags.append(model_tags(model))
    if not rows:
        return None
    order = sorted(range(len(rows)), key=lambda n: [str(cell) for cell in rows[n][:2]])  # keeps the models' order
    heads = ("task", "metric", "better", "model", "base", "adapter", "difference", "standard error", "n", "remark")
    notes = [
        f"Run by lm-evaluation-harness; 95 % intervals of {_NORMAL} standard errors. n: questions. {_NONE}",
        _INDEPENDENT,
    ]
    title = "Ability beside harm: tasks of lm-evaluation-harness"
    return DataTable(f"{name}-tasks", title, heads, [rows[n] for n in order], notes, [tags[n] for n in order])


def with_tasks(table: DataTable, found: Collection, scores: TaskScores) -> DataTable:
    """Return the table of ability, a row for each model, with a column of `mean_differences`, if there are any."""
    means, tasks = mean_differences(found, scores)
    asked = [model.title for model in found.under() if _compared(model, scores)]
    if not means:
        note = (
            "Tasks: no figure here, because no task has a rate of these adapters that can be compared with the base's."
        )
        return dataclasses.replace(table, notes=[*table.notes, note]) if asked else table
    place = list(table.heads).index("× base") + 1
    titles = [model.title for model in found.under()]

    def wider(cells: Sequence[Cell], cell: Cell) -> list[Cell]:
        return [*cells[:place], cell, *cells[place:]]

    rows = [wider(row, means.get(title)) for title, row in zip(titles, table.rows, strict=True)]
    note = (
        f"Tasks: how much more is right than the base has, as a mean over {', '.join(tasks)}; see the table of tasks."
    )
    if left := [title for title in asked if title not in means]:
        note += f" No rate of {', '.join(left)} can be compared with the base's."
    heads = [str(head) for head in wider(table.heads, "tasks, difference")]
    return dataclasses.replace(table, heads=heads, rows=rows, notes=[table.notes[0], note, *table.notes[1:]])


def mean_differences(found: Collection, scores: TaskScores) -> tuple[dict[str, Estimate], list[str]]:
    """Return by the title of each adapter how much more it has right than the base, and the tasks that this is over.

    It is the mean over the tasks for which all these adapters have a rate that can be compared with the base's; of
    several rates of a task, the first one counts. Adapters without any such rate are left out. Without such a task,
    nothing is returned.
    """
    known: dict[str, dict[tuple[str, str], tuple[TaskFigure, TaskFigure]]] = {}
    for model in found.under():
        pairs = {key: pair for key, pair in _compared(model, scores).items() if pair[0].is_rate}
        mine = {
            key: (one, base)
            for key, (one, base) in pairs.items()
            if base and task_difference(one, base).estimate is not None
        }
        if mine:
            known[model.title] = mine
    shared = [key for key in next(iter(known.values()), {}) if all(key in mine for mine in known.values())]
    first = {task: (task, metric) for task, metric in reversed(shared)}
    keys = sorted(first.values())
    if not keys:
        return {}, []
    means = {}
    for title, mine in known.items():
        pairs = [mine[key] for key in keys]
        errors = [_error(*pair) for pair in pairs]
        squares = [None if one is None else one**2 for one in errors]
        error = None if None in squares else math.sqrt(sum(one or 0.0 for one in squares)) / len(keys)
        mean = sum(one.value - other.value for one, other in pairs) / len(keys)
        means[title] = _with_error(mean, error, sum(one.n or 0 for one, _ in pairs))
    return means, [f"{task} ({metric})" for task, metric in keys]


def task_difference(figure: TaskFigure, base: TaskFigure | None) -> Estimate:
    """Return by how much a figure is above the base's; without an estimate, if they cannot be compared (the reason)."""
    n = figure.n or 0
    if base is None:
        return Estimate(n=n, reason="the base has no result of it")
    unlike = [name for name, value in figure.asked.items() if base.asked.get(name) != value]
    if unlike:
        return Estimate(n=n, reason=f"the base was asked otherwise ({', '.join(unlike)})")
    return _with_error(figure.value - base.value, _error(figure, base), n)


def _error(figure: TaskFigure, base: TaskFigure) -> float | None:
    return None if figure.error is None or base.error is None else math.hypot(figure.error, base.error)


def _estimate(figure: TaskFigure) -> Estimate:
    return _with_error(figure.value, figure.error, figure.n or 0)


def _with_error(value: float, error: float | None, n: int) -> Estimate:
    if error is None:
        return Estimate(estimate=value, n=n)
    return Estimate(estimate=value, low=value - _NORMAL * error, high=value + _NORMAL * error, n=n)


def _compared(model: ReportedModel, scores: TaskScores) -> dict[tuple[str, str], tuple[TaskFigure, TaskFigure | None]]:
    """Return the latest figures of an adapter, each with the base's: the latest one that was asked in the same way, or
    else the latest one. There is nothing of the base and of a role, which has no results of its own.
    """
    if model.about["method"] != ADAPTER_METHOD:
        return {}
    weights = model.base.rpartition("-")[0]
    base, found = scores.get((weights, ""), {}), {}
    for key, (figure, *_) in scores.get((weights, str(model.about["adapter"])), {}).items():
        before = base.get(key, ())
        same = [one for one in before if one.asked == figure.asked]
        found[key] = figure, next(iter([*same, *before]), None)
    return found
