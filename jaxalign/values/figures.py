"""Figures of value profiles, drawn without a display and without pyplot's global state."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from jaxalign.analysis.figures import AFTER, BAND, BEFORE, INK, LINK, MUTED, as_png
from jaxalign.analysis.tables import number
from jaxalign.runs.records import write_atomic
from jaxalign.values.schwartz import CIRCLE, GROUPS, label
from jaxalign.values.tables import TableRow

# Profiles are drawn in rows, in the order of Schwartz's circle, and not as radar charts, because the areas of a radar
# mislead and leave no room for numbers.
TARGET, TARGET_END = "#d0d4d9", "#5f666d"


def profile_figure(
    path: str | Path,
    target: Mapping[str, float] | None,
    before: Mapping[str, float | None],
    after: Mapping[str, float | None],
    title: str,
) -> None:
    """Draw ten scores (1..6) of the target and of the model before and after training, as a PNG of 1920 x 1080 pixels.

    Args:
        path: the PNG file; it is written whole or not at all.
        target: value -> score, or None for a model that was trained towards no value.
        before, after: value -> score; None where nothing could be read, drawn as a dash.
        title: one line above the plot.

    Raises:
        UserError: the file cannot be written.
    """
    figure = Figure(figsize=(12.8, 7.2), dpi=150, facecolor="white")
    axes = figure.add_axes((0.37, 0.11, 0.39, 0.71))
    _draw_frame(axes)
    for row, value in enumerate(CIRCLE):
        _draw_row(axes, row, target[value] if target else None, before[value], after[value])
    if target is not None:
        _draw_column(axes, 6.75, "Target", TARGET_END, target)
    _draw_column(axes, 7.67, "Before", BEFORE, before)
    _draw_column(axes, 8.59, "After", AFTER, after)
    size = min(23, 1400 / max(len(title), 1))  # a long title gets smaller letters, so that it fits into one line
    figure.text(0.03, 0.925, title, fontsize=size, fontweight="bold", color=INK, parse_math=False)
    write_atomic(path, as_png(figure))


def _draw_frame(axes: Axes) -> None:
    """Draw the scale, and the names of the groups and values on the left."""
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
    for index, (group, values) in enumerate(GROUPS.items()):
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
    """Write the scores of one profile on the right, under its name and its mark; the columns serve as the legend."""
    if name == "Target":
        axes.barh(-1.42, 0.4, left=x - 0.2, height=0.4, color=TARGET, clip_on=False)
        axes.plot([x + 0.2, x + 0.2], [-1.62, -1.22], color=TARGET_END, linewidth=4, clip_on=False)
    else:
        fill = "white" if name == "Before" else color
        axes.plot(x, -1.42, "o", markersize=14, mfc=fill, mec=color, mew=3, clip_on=False)
    axes.text(x, -0.82, name, ha="center", va="center", fontsize=15, fontweight="bold", color=color)
    for row, value in enumerate(CIRCLE):
        score = scores[value]
        text = "–" if score is None else f"{score:.1f}"
        weight = "bold" if name == "After" else "normal"
        axes.text(x, row, text, ha="center", va="center", fontsize=16, fontweight=weight, color=color)


def comparison_figure(path: str | Path, rows: Sequence[TableRow], title: str) -> None:
    """Draw the scores of all readings as a heat map, one row for each reading and one column for each value, as a PNG.

    The columns are in the order of Schwartz's circle. A frame marks the values with the row's highest target score.

    Raises:
        UserError: the file cannot be written.
    """
    shown = [row for row in rows if row.method != "constant"]
    names = [row.title + (f", {row.reading}" if row.reading == "parse" else "") for row in shown]
    height = 2.4 + 0.42 * len(shown)
    figure = Figure(figsize=(12.8, height), dpi=150, facecolor="white")
    axes = figure.add_axes((0.25, 0.35 / height, 0.68, 0.42 * len(shown) / height))
    scores = [[row.results["scores"][value] for value in CIRCLE] for row in shown]
    grid = [[float("nan") if score is None else score for score in line] for line in scores]
    axes.imshow(grid, vmin=1, vmax=6, cmap="Blues", aspect="auto")
    for y, (row, line) in enumerate(zip(shown, scores, strict=True)):
        for x, (value, score) in enumerate(zip(CIRCLE, line, strict=True)):
            dark = score is not None and score > 3.8
            axes.text(x, y, number(score, 1), ha="center", va="center", fontsize=12, color="white" if dark else INK)
            target = row.target
            if target is not None and len(set(target.scores)) > 1 and target.score(value) == max(target.scores):
                frame = Rectangle((x - 0.47, y - 0.44), 0.94, 0.88, fill=False, edgecolor=AFTER, linewidth=2.5)
                axes.add_patch(frame)
    axes.set_xticks(range(len(CIRCLE)), [label(value) for value in CIRCLE], rotation=30, ha="left", fontsize=12)
    axes.xaxis.tick_top()
    axes.set_yticks(range(len(shown)), names, fontsize=12, parse_math=False)
    axes.tick_params(length=0, labelcolor=INK)
    for spine in axes.spines.values():
        spine.set_visible(False)
    figure.text(0.02, 1 - 0.35 / height, title, fontsize=18, fontweight="bold", color=INK, parse_math=False)
    note = "scores from 1 (not important) to 6 (very important); framed: highest in the target"
    figure.text(0.02, 1 - 0.65 / height, note, fontsize=11, color=MUTED)
    write_atomic(path, as_png(figure))
