"""What models can do in tasks of lm-evaluation-harness, beside the base: a table, and one figure for each model."""

import dataclasses
import math
from collections.abc import Mapping, Sequence

from jaxalign.analysis.data_tables import Cell, DataTable
from jaxalign.analysis.estimates import Estimate
from jaxalign.safety.collection import Collection, ReportedModel
from jaxalign.safety.noise import seed_noise
from jaxalign.safety.report_tables import Tags, model_tags
from jaxalign.safety.task_results import TaskFigure

TaskScores = Mapping[tuple[str, str], Mapping[tuple[str, str], tuple[TaskFigure, TaskFigure | None]]]
"""By the hashes of a base and of an adapter, and by (task, metric): the adapter's figure, and the base's beside it."""

_NORMAL = 1.96
"""The 95 % interval of a figure reaches this number of standard errors to each side."""

_NONE = "Where all or none is right, lm-eval gives a standard error of 0, which says nothing."
_INDEPENDENT = (
    "Standard error of the difference: as if the two figures were independent. Base and adapter answered the same "
    "questions, so the true one is mostly smaller."
)


def base_hash(signature: str) -> str:
    """Return the hash of a base from the signature in a summary, which has the number format behind it.

    >>> base_hash("3f2a-int8")
    '3f2a'
    """
    return signature.rpartition("-")[0]


def tasks_table(found: Collection, name: str, scores: TaskScores) -> DataTable | None:
    """Return each adapter's figures in tasks, those of the base, and the differences; None if no adapter has any."""
    rows: list[list[Cell]] = []
    tags: list[Tags] = []
    noises = _task_noises(found, scores)
    for model in found.under():
        for key, (figure, before) in _figures(model, scores).items():
            change = task_difference(figure, before)
            error = None if before is None or change.estimate is None else _error(figure, before)
            better = "" if figure.higher is None else "higher" if figure.higher else "lower"
            shown = [None if before is None else _estimate(before), _estimate(figure), change, error]
            shown.append(noises[key].estimate)
            rows.append([figure.task, figure.metric, better, model.title, *shown, figure.n, change.reason or ""])
            tags.append(model_tags(model))
    if not rows:
        return None
    order = sorted(range(len(rows)), key=lambda n: [str(cell) for cell in rows[n][:2]])  # keeps the models' order
    heads = ("task", "metric", "better", "model", "base", "adapter", "difference", "standard error")
    heads = (*heads, "noise", "n", "remark")
    notes = [
        f"Run by lm-evaluation-harness; 95 % intervals of {_NORMAL} standard errors. n: questions. {_NONE}",
        _INDEPENDENT,
        "Noise: how far the adapter's figure moves between seeds of one target, a standard deviation.",
        *dict.fromkeys(f"No noise: {noise.reason}." for noise in noises.values() if noise.estimate is None),
    ]
    title = "Ability beside harm: tasks of lm-evaluation-harness"
    return DataTable(f"{name}-tasks", title, heads, [rows[n] for n in order], notes, [tags[n] for n in order])


def _task_noises(found: Collection, scores: TaskScores) -> dict[tuple[str, str], Estimate]:
    """Return how far the figures of adapters move between seeds of one target, by task and metric."""
    by_figure: dict[tuple[str, str], list[tuple[ReportedModel, float]]] = {}
    for model in found.under():
        for key, (figure, _) in _figures(model, scores).items():
            by_figure.setdefault(key, []).append((model, figure.value))
    return {
        key: seed_noise([model.about for model, _ in some], [value for _, value in some])
        for key, some in by_figure.items()
    }


def with_tasks(table: DataTable, found: Collection, scores: TaskScores) -> DataTable:
    """Return the table of ability, a row for each model, with a column of `mean_differences`, if there are any.

    A note says which adapters with results have none, and why.
    """
    means, tasks, without = mean_differences(found, scores)
    why = [f"Tasks: no difference of {title}: {reason}." for title, reason in without.items()]
    if not means:
        return dataclasses.replace(table, notes=[table.notes[0], *why, *table.notes[1:]])
    place = list(table.heads).index("× base") + 1
    titles = [model.title for model in found.under()]

    def wider(cells: Sequence[Cell], cell: Cell) -> list[Cell]:
        return [*cells[:place], cell, *cells[place:]]

    rows = [wider(row, means.get(title)) for title, row in zip(titles, table.rows, strict=True)]
    note = (
        f"Tasks: how much more is right than the base has, as a mean over {', '.join(tasks)}; see the table of tasks."
    )
    heads = [str(head) for head in wider(table.heads, "tasks, difference")]
    return dataclasses.replace(table, heads=heads, rows=rows, notes=[table.notes[0], note, *why, *table.notes[1:]])


def mean_differences(found: Collection, scores: TaskScores) -> tuple[dict[str, Estimate], list[str], dict[str, str]]:
    """Return by the title of each adapter how much more it has right than the base, and the tasks that this is over.

    It is the mean over the tasks for which all adapters, as far as they have any, have a rate that can be compared with
    the base's; of several rates of a task, the first one counts. For the other adapters with results, the reason why
    there is none is returned last.
    """
    pairs: dict[str, dict[tuple[str, str], tuple[TaskFigure, TaskFigure]]] = {}
    without: dict[str, str] = {}
    for model in found.under():
        mine = _figures(model, scores)
        changes = {key: task_difference(one, base) for key, (one, base) in mine.items() if one.is_rate}
        compared = {
            key: (one, base) for key, (one, base) in mine.items() if base and key in changes and not changes[key].reason
        }
        if compared:
            pairs[model.title] = compared
        elif mine:
            reasons = dict.fromkeys(str(change.reason) for change in changes.values())
            without[model.title] = "; ".join(reasons) or "none of its tasks has a share of right answers"
    shared = [key for key in next(iter(pairs.values()), {}) if all(key in some for some in pairs.values())]
    keys = sorted({task: (task, metric) for task, metric in reversed(shared)}.values())
    if not keys:
        return {}, [], {**without, **dict.fromkeys(pairs, "no task can be compared for all adapters")}
    means = {title: _mean([some[key] for key in keys]) for title, some in pairs.items()}
    return means, [f"{task} ({metric})" for task, metric in keys], without


def _mean(pairs: Sequence[tuple[TaskFigure, TaskFigure]]) -> Estimate:
    """Return the mean difference of figures from the base's."""
    errors = [_error(*pair) for pair in pairs]
    known = [one**2 for one in errors if one is not None]
    error = math.sqrt(sum(known)) / len(pairs) if len(known) == len(pairs) else None
    mean = sum(one.value - other.value for one, other in pairs) / len(pairs)
    return _with_error(mean, error, sum(one.n or 0 for one, _ in pairs))


def task_difference(figure: TaskFigure, base: TaskFigure | None) -> Estimate:
    """Return by how much a figure is above the base's; without an estimate, if they cannot be compared (the reason)."""
    n = figure.n or 0
    if base is None:
        return Estimate(n=n, reason="the base has no result of it")
    unlike = [name for name, value in figure.conditions.items() if base.conditions.get(name) != value]
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


def _figures(
    model: ReportedModel, scores: TaskScores
) -> Mapping[tuple[str, str], tuple[TaskFigure, TaskFigure | None]]:
    """Return the figures of an adapter, each with the base's; none of the base and of a role, which has no results."""
    return scores.get((base_hash(model.base), str(model.about["adapter"])), {}) if model.is_adapter else {}
