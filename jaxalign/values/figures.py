"""Figures, drawn without a display and without pyplot's global state."""

import io
from collections.abc import Mapping
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from jaxalign.runs.records import write_atomic
from jaxalign.values.schwartz import label

# Schwartz's circle, cut open before self-direction: neighbours are compatible motives. Rows are read more exactly than
# the spokes of a radar, whose areas mislead, and leave each score room to be written out.
CIRCLE = (
    ("openness_to_change", ("self_direction", "stimulation")),
    ("self_enhancement", ("hedonism", "achievement", "power")),
    ("conservation", ("security", "conformity", "tradition")),
    ("self_transcendence", ("benevolence", "universalism")),
)
INK, MUTED, BAND, LINK = "#222222", "#6b6b6b", "#f5f5f3", "#9a9a9a"
TARGET, TARGET_END = "#d0d4d9", "#5f666d"
BEFORE, AFTER = "#0072b2", "#d55e00"  # blue and vermilion of Okabe and Ito, which colour-blind readers tell apart


def profile_figure(
    path: str | Path,
    target: Mapping[str, float] | None,
    before: Mapping[str, float | None],
    after: Mapping[str, float | None],
    title: str,
) -> None:
    """Draw the ten values' scores (1..6) of a target, a model before, and the model after, as a PNG of 1920 x 1080.

    Args:
        path: where the PNG goes; it appears whole or not at all.
        target: value to score, or None for a model trained towards no value.
        before, after: value to score; None where nothing could be read, which is drawn as a dash.
        title: stands above the plot, in one line.

    Raises:
        UserError: the file cannot be written.
    """
    figure = Figure(figsize=(12.8, 7.2), dpi=150, facecolor="white")
    canvas = FigureCanvasAgg(figure)
    axes = figure.add_axes((0.37, 0.11, 0.39, 0.71))
    _draw_frame(axes)
    for row, value in enumerate(value for _, values in CIRCLE for value in values):
        _draw_row(axes, row, target[value] if target else None, before[value], after[value])
    if target is not None:
        _draw_column(axes, 6.75, "Target", TARGET_END, target)
    _draw_column(axes, 7.67, "Before", BEFORE, before)
    _draw_column(axes, 8.59, "After", AFTER, after)
    size = min(23, 1400 / max(len(title), 1))  # a long title shrinks to one line
    figure.text(0.03, 0.925, title, fontsize=size, fontweight="bold", color=INK, parse_math=False)
    picture = io.BytesIO()
    canvas.print_png(picture)
    write_atomic(path, picture.getvalue())


def _draw_frame(axes: Axes) -> None:
    """Draw the scale, and name the groups and values on the left."""
    axes.set_xlim(0.85, 6.15)
    axes.set_ylim(9.5, -0.5)
    axes.set_xticks(range(1, 7))
    axes.tick_params(length=0, labelsize=14, labelcolor=MUTED)
    for score, meaning in ((1, "not important"), (6, "very important")):
        axes.text(score, 10.3, meaning, ha="center", va="center", fontsize=14, color=MUTED)
    axes.set_yticks([])
    axes.grid(axis="x", color="#dedede", linewidth=1)
    axes.set_axisbelow(True)
    for spine in axes.spines.values():
        spine.set_visible(False)
    row = 0
    for index, (group, values) in enumerate(CIRCLE):
        if index % 2 == 0:
            axes.axhspan(row - 0.5, row + len(values) - 0.5, -1, 2, color=BAND, linewidth=0, clip_on=False, zorder=0)
        axes.text(
            -3.76, row + (len(values) - 1) / 2, label(group), va="center", fontsize=14, color=MUTED, style="italic"
        )
        for value in values:
            axes.text(0.72, row, label(value), ha="right", va="center", fontsize=17, color=INK)
            row += 1


def _draw_row(axes: Axes, row: int, target: float | None, before: float | None, after: float | None) -> None:
    """Draw one value: a bar for the target, a ring for the model before, a disc for the model after."""
    if target is not None:
        axes.barh(row, target - 1, left=1, height=0.56, color=TARGET, zorder=2)
        axes.plot([target, target], [row - 0.28, row + 0.28], color=TARGET_END, linewidth=4, zorder=3, clip_on=False)
    if before is not None and after is not None:
        axes.plot([before, after], [row, row], color=LINK, linewidth=3, zorder=4)
    if before is not None:
        axes.plot(before, row, "o", markersize=14, mfc="white", mec=BEFORE, mew=3, zorder=5, clip_on=False)
    if after is not None:
        axes.plot(after, row, "o", markersize=12, color=AFTER, mec="white", mew=1, zorder=6, clip_on=False)


def _draw_column(axes: Axes, x: float, name: str, color: str, scores: Mapping[str, float | None]) -> None:
    """Write one profile's scores on the right, under its name and its mark: the columns are the legend."""
    if name == "Target":
        axes.barh(-1.42, 0.4, left=x - 0.2, height=0.4, color=TARGET, clip_on=False)
        axes.plot([x + 0.2, x + 0.2], [-1.62, -1.22], color=TARGET_END, linewidth=4, clip_on=False)
    else:
        fill = "white" if name == "Before" else color
        axes.plot(x, -1.42, "o", markersize=14, mfc=fill, mec=color, mew=3, clip_on=False)
    axes.text(x, -0.82, name, ha="center", va="center", fontsize=15, fontweight="bold", color=color)
    for row, value in enumerate(value for _, values in CIRCLE for value in values):
        score = scores[value]
        text = "–" if score is None else f"{score:.1f}"
        weight = "bold" if name == "After" else "normal"
        axes.text(x, row, text, ha="center", va="center", fontsize=16, fontweight=weight, color=color)
