"""Results of lm-evaluation-harness, as it writes them with `--output_path`: read, checked, and of which model they are.

The form of the file is that of lm-eval 0.4 (`EvalResults` and `EvaluationTracker` in its source); which weights were
asked is written into it by `jaxalign.harness`.
"""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jaxalign.errors import UserError
from jaxalign.runs.expected import Each, Expected, Maybe, damage
from jaxalign.runs.reading import parse_json, read_text
from jaxalign.runs.records import digest

LARGEST_RESULTS = 100_000_000
"""The largest file of results, in bytes."""

OF_MODEL = {"base": "jaxalign_base", "precision": "jaxalign_precision", "adapter": "jaxalign_adapter"}
"""The keys that `jaxalign.harness` writes into the file's `config`: hashes of base and adapter, "" for none."""

_FILE: Expected = {
    **dict.fromkeys(("results", "configs", "n-samples", "higher_is_better"), Each(dict)),
    **{"groups": Maybe(Each(dict)), "group_subtasks": Each(list)},
    **dict.fromkeys(("config", "versions", "n-shot"), dict),
    "date": int | float,
}
_NO_ERROR = (None, "N/A")
"""What lm-eval writes in the place of a standard error that it does not compute."""


@dataclasses.dataclass(frozen=True)
class TaskFigure:
    """One metric of one task.

    Attributes:
        task: the task, or a group of tasks.
        metric: the metric, with the name of its filter if it has one.
        value: the figure, in the metric's unit.
        error: its standard error; None if lm-eval gives none.
        higher: whether more is better; None if that is not known.
        n: how many questions were asked; None for a group.
        conditions: what decides the questions besides the model; two models can be compared if it is the same.
    """

    task: str
    metric: str
    value: float
    error: float | None
    higher: bool | None
    n: int | None
    conditions: Mapping[str, Any]

    @property
    def is_rate(self) -> bool:
        """Whether it is a share of right answers of a single task."""
        return self.n is not None and self.metric.split(" ")[0] in ("acc", "exact_match", "acc_norm")


@dataclasses.dataclass(frozen=True)
class TaskResults:
    """The results in one file: its path, the model's hashes and number format, when they were made, and the figures."""

    path: str
    base: str
    precision: str
    adapter: str
    date: float
    figures: list[TaskFigure]

    @property
    def key(self) -> tuple[str, str]:
        """The hashes of the base and of the adapter, which tell the model from others."""
        return self.base, self.adapter

    def conditions(self, task: str) -> Mapping[str, Any]:
        """Return what decides the questions of a task that it has figures of (see `TaskFigure`)."""
        return next(figure.conditions for figure in self.figures if figure.task == task)


def read_task_results(path: Path) -> TaskResults | str:
    """Return the results in a file; or, if another program's model has them or it is not said which, that in words.

    Raises:
        UserError: it cannot be read, or is not what lm-eval writes: a part is missing or is of another type, or a
            figure or its standard error is not a finite number.
    """
    hint = "give what lm_eval --output_path has written (results_*.json)"
    told = parse_json(
        read_text(path, largest=LARGEST_RESULTS, hint=hint), path, expected="a results file of lm-eval", hint=hint
    )
    if problem := damage(told, _FILE):
        raise UserError(f"{path} is no results file of lm-eval ({problem}): {hint}")
    every = {**(told.get("groups") or {}), **told["results"]}
    if odd := next((name for one in every for name in (one, *every[one]) if not name.isprintable()), None):
        raise UserError(f"{path} is no results file of lm-eval (it names a task or metric {odd!r:.60}): {hint}")
    config = told["config"]
    if config.get("model") != "jaxalign":
        return f"its model is {config.get('model')!r:.60} of lm-eval, not jaxalign"
    names = {field: config.get(key) for field, key in OF_MODEL.items()}
    if not all(isinstance(name, str) for name in names.values()):
        return "it does not say which weights were asked: run the tasks again with lm-eval 0.4.11 or newer"
    figures = [figure for task in every for figure in _figures(told, task, every[task], names["precision"], path)]
    return TaskResults(str(path), date=float(told["date"]), figures=figures, **names)


def _figures(told: Any, task: str, found: Mapping[str, Any], precision: Any, path: Path) -> list[TaskFigure]:
    size = told["n-samples"].get(task, {}).get("effective")
    whole = bool(told["group_subtasks"].get(task))
    n = None if whole or not isinstance(size, int) else size
    conditions, better = _conditions(told, task, precision), told["higher_is_better"].get(task, {})
    figures = []
    for key, value in found.items():
        metric, comma, how = key.partition(",")
        if not comma or metric.endswith("_stderr"):
            continue  # such as the task's name
        error = found.get(f"{metric}_stderr,{how}")
        for what, number in ((key, value), (f"{metric}_stderr,{how}", 0 if error in _NO_ERROR else error)):
            if isinstance(number, bool) or not isinstance(number, int | float) or (what != key and number < 0):
                raise UserError(f"{path} is damaged (results of {task}: {what} is {number!r:.60}): run the task again")
        higher = better.get(metric)
        figures.append(
            TaskFigure(
                task,
                metric if how == "none" else f"{metric} ({how})",
                float(value),
                None if error in _NO_ERROR else float(error),
                higher if isinstance(higher, bool) else None,
                n,
                conditions,
            )
        )
    return figures


def _conditions(told: Mapping[str, Any], task: str, precision: Any) -> dict[str, Any]:
    """Return what decides the questions of a task and how the model was asked, without the model's own names."""
    config = told["config"]
    # A task's metadata holds the arguments of the model.
    text = {key: value for key, value in told["configs"].get(task, {}).items() if key != "metadata"}
    return {
        "version": told["versions"].get(task),
        "number of examples": told["n-shot"].get(task),
        "questions": told["n-samples"].get(task),
        "limit": config.get("limit"),
        "seed of the examples": config.get("fewshot_seed"),
        "settings of generation": config.get("gen_kwargs"),
        "system message": told.get("system_instruction_sha"),
        "chat template": told.get("chat_template_sha"),
        "precision": precision,
        "configuration": digest(text),
    }
