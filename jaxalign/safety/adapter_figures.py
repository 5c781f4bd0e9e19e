"""Figures of the adapters themselves in a report on harm: their values, and how they were trained."""

from collections import Counter
from collections.abc import Sequence
from itertools import accumulate
from statistics import median

import numpy as np
from matplotlib.figure import Figure

from jaxalign.analysis.figures import AFTER, BEFORE, INK, LINK, MUTED, OKABE_ITO
from jaxalign.safety.collection import Collection, ReportedModel
from jaxalign.safety.figures import MOST_LINES, WIDTH, column_figure, legend, plot_figure, shortened
from jaxalign.safety.report_tables import TrainingLosses
from jaxalign.values.schwartz import CIRCLE, label

MOST_RADARS = 12
_COLUMNS = 4
_RINGS = (1.0, 3.5, 6.0)
"""The lowest, the middle and the highest score."""
_RADIUS = 0.31  # of the highest score, in inches


def short_names() -> dict[str, str]:
    """Return for each value the fewest first letters that no other value begins with.

    >>> short_names()["self_direction"], short_names()["security"], short_names()["stimulation"]
    ('Sel', 'Sec', 'St')
    """
    names = {value: label(value) for value in CIRCLE}

    def fewest(value: str) -> str:
        others = [name for other, name in names.items() if other != value]
        sizes = range(1, len(names[value]) + 1)
        return next(names[value][:size] for size in sizes if not any(o[:size] == names[value][:size] for o in others))

    return {value: fewest(value) for value in CIRCLE}


def adapters_with_targets(found: Collection) -> list[ReportedModel]:
    """Return the adapters of a collection at their own scale that have a target, in the order of the collection."""
    return [model for model in found.under() if model.is_adapter and model.is_whole and model.about.get("target")]


def profile_radars(found: Collection, title: str, note: str) -> Figure | None:
    """Draw target and measured scores of each adapter around Schwartz's circle; None if nothing was measured.

    More than `MOST_RADARS` adapters are cut.
    """
    models = adapters_with_targets(found)
    if not any(model.about.get("measured") for model in models):
        return None
    shown = models[:MOST_RADARS]
    rows = -(-len(shown) // _COLUMNS)
    height = 0.7 + 1.0 * rows
    cut = "" if len(shown) == len(models) else f"; {len(shown)} of {len(models)} adapters"
    figure = column_figure(height, title, f"{note}{cut}")
    # All circles stand in one plot, because polar plots of Matplotlib take ten times as long.
    axes = figure.add_axes((0, 0.2 / height, 1, rows / height))
    axes.set_axis_off()
    axes.set_xlim(0, WIDTH)
    axes.set_ylim(-rows, 0)
    angles = np.linspace(0, 2 * np.pi, len(CIRCLE) + 1)
    spokes = np.stack([np.sin(angles), np.cos(angles)])
    names, handles = short_names(), []
    for number, model in enumerate(shown):
        row, column = divmod(number, _COLUMNS)
        x, y = (column + 0.5) * WIDTH / _COLUMNS, -row - 0.57
        for radius in _RINGS:
            axes.plot(*_around(x, y, spokes, np.full(len(angles), radius)), color=LINK, linewidth=0.3)
        for angle, value in zip(angles, CIRCLE, strict=False):
            away = _RADIUS + 0.06
            tip = (x + away * np.sin(angle), y + away * np.cos(angle))
            axes.plot([x, x + _RADIUS * np.sin(angle)], [y, y + _RADIUS * np.cos(angle)], color=LINK, linewidth=0.3)
            axes.text(*tip, names[value], fontsize=4.2, color=MUTED, ha="center", va="center")
        lines = []
        for scores, colour, style in ((model.about["target"], BEFORE, "--"), (model.about.get("measured"), AFTER, "-")):
            values = [np.nan if scores is None else scores.get(value, np.nan) for value in CIRCLE]
            around = _around(x, y, spokes, np.array([*values, values[0]], float))
            lines += axes.plot(*around, style, color=colour, linewidth=0.9)
        handles = handles or lines
        name, _, kind = model.title.partition(" (")  # such as a control
        axes.text(x, y + 0.44, shortened(name, 20), fontsize=5.5, color=INK, ha="center", parse_math=False)
        axes.text(x, y + 0.52, kind[:-1], fontsize=4.2, color=MUTED, ha="center", parse_math=False)
    legend(figure, handles, ["target", "measured"])
    return figure


def _around(x: float, y: float, spokes: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Return the points [2, n] of scores on spokes [2, n] around a centre."""
    return np.array([[x], [y]]) + _RADIUS * scores / _RINGS[-1] * spokes


def _begins(logged: Sequence[Sequence[tuple[str, int, float]]]) -> dict[str, int]:
    """Return for each stage how many steps the stages before it have: of several adapters, the most.

    >>> _begins([[("arguments", 10, 3.5), ("survey", 10, 2.7)], [("arguments", 36, 2.8)]])
    {'arguments': 0, 'survey': 36}
    """
    most: dict[str, int] = {}
    for stage, step, _ in (one for steps in logged for one in steps):
        most[stage] = max(step, most.get(stage, 0))
    return dict(zip(most, accumulate(most.values(), initial=0), strict=False))


def training_curves(found: Collection, losses: TrainingLosses, title: str, note: str) -> Figure | None:
    """Draw the loss of each adapter over the steps of its training, stage after stage; None if no log is there.

    Up to `MOST_LINES` adapters have a colour each; of more, all are grey, with their median.
    """
    models = [one for one in adapters_with_targets(found) if losses.get(str(one.about["adapter"]))]
    if not models:
        return None
    few = len(models) <= MOST_LINES
    names = [model.title for model in models] if few else [f"each of {len(models)} adapters", "their median"]
    figure, axes = plot_figure(2.2, len(names), title, note, "step, one stage after the other", "loss")
    logged = [losses[str(model.about["adapter"])] for model in models]
    begins = _begins(logged)
    curves = [{begins[stage] + step: loss for stage, step, loss in one} for one in logged]
    colours = OKABE_ITO if few else [LINK] * len(curves)
    handles = []
    for curve, colour in zip(curves, colours, strict=False):
        handles += axes.plot(list(curve), list(curve.values()), color=colour, linewidth=0.8 if few else 0.4)
    if not few:
        # A run that was interrupted has logged a few more steps; the median is taken where at least half have one.
        steps = Counter(step for curve in curves for step in curve)
        shared = sorted(step for step, runs in steps.items() if 2 * runs >= len(curves))
        medians = [median(curve[step] for curve in curves if step in curve) for step in shared]
        handles = [handles[0], *axes.plot(shared, medians, color=AFTER, linewidth=1.2)]
    for begin in list(begins.values())[1:]:
        axes.axvline(begin + 0.5, color=LINK, linewidth=0.6, linestyle=(0, (4, 3)))
    legend(figure, handles, names)
    return figure
