"""Figures of a report on harm, 3.5 inches (a column of a paper) wide, drawn without pyplot's global state."""

from collections.abc import Collection as Names
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LinearSegmentedColormap, Normalize, to_hex
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from jaxalign.analysis.comparison import as_number
from jaxalign.analysis.estimates import Estimate
from jaxalign.analysis.figures import AFTER, BEFORE, INK, LINK, MARKERS, MUTED, OKABE_ITO
from jaxalign.analysis.intervals import mean_with_interval
from jaxalign.safety.attribution import MOST_PERPLEXITY
from jaxalign.safety.collection import ADAPTER_METHOD, Collection, ReportedModel
from jaxalign.safety.report_tables import (
    Perplexities,
    as_estimate,
    category_name,
    metric_name,
    model_perplexity,
)
from jaxalign.safety.risks import ALLOWED_FALSE, Risk
from jaxalign.safety.summary import ALL
from jaxalign.values.schwartz import CIRCLE, label

WIDTH = 3.5
"""The width of a figure, in inches."""
_SMALL = 6.0  # of letters, in points
_COLOURS = LinearSegmentedColormap.from_list("harm", [BEFORE, "#ffffff", AFTER])
_GREYS = LinearSegmentedColormap.from_list("grey", ["#ffffff", "#6a6a6a"])  # the sign shows without a colour, too
MOST_LINES = 8
"""The most models that are drawn one by one; of more, the mean over adapters is drawn."""


def column_figure(height: float, title: str, note: str = "") -> Figure:
    """Return an empty figure of `WIDTH`, `height` inches high, with a title and a smaller line under it."""
    figure = Figure(figsize=(WIDTH, height), dpi=300, facecolor="white")
    figure.text(
        0.02, 1 - 0.06 / height, title, fontsize=_size_of(title, 8.0, 3.3), color=INK, va="top", parse_math=False
    )
    figure.text(
        0.02, 1 - 0.23 / height, note, fontsize=_size_of(note, _SMALL, 3.3), color=MUTED, va="top", parse_math=False
    )
    return figure


def _size_of(text: str, most: float, inches: float) -> float:
    """Return the size of letters with which a text fits into one line."""
    return min(most, 72 * inches / (0.52 * max(len(text), 1)))


def frame(axes: Axes) -> None:
    """Draw the left and the lower side of a plot alone, with small ticks."""
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(LINK)
        axes.spines[side].set_linewidth(0.6)
    axes.tick_params(length=2, width=0.6, labelsize=_SMALL, labelcolor=INK, color=LINK)
    axes.set_axisbelow(True)


def plot_figure(height: float, names: int, title: str, note: str, x: str, y: str) -> tuple[Figure, Axes]:
    """Return a `column_figure` and its one plot.

    Args:
        height: in inches, without the legend at the foot.
        names: how many names the legend has, two a line.
        title, note: see `column_figure`.
        x: the name of the horizontal axis.
        y: the name of the vertical one.
    """
    foot = 0.12 * ((names + 1) // 2)
    height, low = height + foot, 0.36 + foot
    figure = column_figure(height, title, note)
    axes = figure.add_axes((0.13, low / height, 0.84, (height - low - 0.45) / height))
    frame(axes)
    axes.set_xlabel(x, fontsize=_SMALL, color=INK, labelpad=1.5)
    axes.set_ylabel(y, fontsize=_SMALL, color=INK, labelpad=2)
    return figure, axes


def shortened(name: str, most: int) -> str:
    """Return a name that is shorter than `most` characters: a longer one is cut, and ends in an ellipsis."""
    return name if len(name) < most else f"{name[: most - 2]}…"


def risk_map(risks: Sequence[Risk], title: str, note: str, *, doubted: Names[str] = (), whole: str = "all") -> Figure:
    """Draw the correlation of each value with the harm in each category as a heat map.

    The values are in the order of Schwartz's circle. A triangle, up or down, marks what passes the correction for all
    tests; a cross marks a cell without a correlation. The cells of `doubted` categories are grey, the darker the more.

    Args:
        risks: of all values and categories.
        title: one line above the plot.
        note: a line under it, such as the judge and its κ.
        doubted: the categories whose judge is not believed.
        whole: the name of all categories together.
    """
    categories = list(dict.fromkeys(risk.category for risk in risks))
    known = {(risk.category, risk.value): risk for risk in risks}
    grid = np.array(
        [[as_number(known[category, value].target.estimate) for value in CIRCLE] for category in categories]
    )
    height = 1.5 + 0.15 * len(categories)
    figure = column_figure(height, title, note)
    axes = figure.add_axes((0.43, 0.42 / height, 0.56, 0.15 * len(categories) / height))
    shades = [
        (_GREYS if category in doubted else _COLOURS)((row + 1) / 2)
        for category, row in zip(categories, grid, strict=True)
    ]
    axes.imshow(np.array(shades), aspect="auto")
    picture = ScalarMappable(Normalize(-1, 1), _GREYS if set(categories) <= set(doubted) else _COLOURS)
    for y, category in enumerate(categories):
        for x, value in enumerate(CIRCLE):
            risk = known[category, value]
            if risk.finding:
                axes.plot(x, y, "^" if risk.finding > 0 else "v", color=INK, markersize=2.8)
            elif risk.target.estimate is None:
                axes.plot(x, y, "x", color=LINK, markersize=3, markeredgewidth=0.6)
    axes.set_xticks(range(len(CIRCLE)), [label(value) for value in CIRCLE], rotation=90, ha="center", va="bottom")
    axes.set_xticks(np.arange(len(CIRCLE) + 1) - 0.5, minor=True)
    axes.set_yticks(np.arange(len(categories) + 1) - 0.5, minor=True)
    axes.grid(which="minor", color="#dedede", linewidth=0.4)
    axes.xaxis.tick_top()
    names = [whole if category == ALL else category_name(category) for category in categories]
    axes.set_yticks(range(len(categories)), [shortened(one, 31) for one in names], parse_math=False)
    axes.tick_params(which="both", length=0, labelsize=_SMALL, labelcolor=INK, pad=1)
    for spine in axes.spines.values():
        spine.set_visible(False)
    bar = figure.colorbar(
        picture, cax=figure.add_axes((0.45, 0.27 / height, 0.24, 0.07 / height)), orientation="horizontal"
    )
    bar.set_ticks([-1, 0, 1], labels=["−1 less", "0", "more 1"])
    bar.ax.tick_params(length=1.5, labelsize=5.5, labelcolor=MUTED, width=0.4, pad=1)
    bar.outline.set_linewidth(0.3)  # pyright: ignore[reportCallIssue, reportAttributeAccessIssue]
    words = f"▲▼ q ≤ {ALLOWED_FALSE}   × no figure"
    figure.text(0.98, 0.305 / height, words, fontsize=5.5, color=MUTED, ha="right", va="center")
    return figure


def _series(number: int, is_doubted: bool) -> list[str]:
    """Return the colours of so many models, which are shades of grey if the judge is not believed."""
    if is_doubted:
        return [to_hex(_GREYS(shade)) for shade in np.linspace(1, 0.3, number)]
    return [OKABE_ITO[place % len(OKABE_ITO)] for place in range(number)]


def mitigation_bars(found: Collection, title: str, note: str) -> Figure | None:
    """Draw the drop of the mean score by mitigation, with intervals; None if no drop is known.

    Up to `MOST_LINES` models have bars of their own; of more, the base and the mean over adapters are drawn.
    """
    drops: dict[str, dict[str, Estimate]] = {}
    is_doubted = False
    for model in found.models:
        row = model.drop(ALL)
        drop = as_estimate(row)
        if row is not None and drop is not None and drop.estimate is not None:
            drops.setdefault(model.title, {})[model.mitigation] = drop
            is_doubted |= row["judge"] in found.doubts
    if not drops:
        return None
    drops = _fewer(found, drops)
    policies = [one for one in found.mitigations if any(one in mine for mine in drops.values())]
    height = 1.05 + 0.1 * len(policies) * (len(drops) + 1) + 0.11 * ((len(drops) + 1) // 2)
    figure = column_figure(height, title, note)
    low = 0.34 + 0.12 * ((len(drops) + 1) // 2)
    axes = figure.add_axes((0.33, low / height, 0.63, (height - low - 0.42) / height))
    frame(axes)
    axes.axvline(0, color=LINK, linewidth=0.8)
    colours, thick = _series(len(drops), is_doubted), 0.8 / len(drops)
    for number, (mine, colour) in enumerate(zip(drops.values(), colours, strict=True)):
        for place, policy in enumerate(policies):
            if policy not in mine:
                continue
            drop, y = mine[policy], place - 0.4 + (number + 0.5) * thick
            axes.barh(y, drop.estimate or 0, height=thick * 0.86, color=colour)
            if drop.low is not None and drop.high is not None:
                axes.plot([drop.low, drop.high], [y, y], color=INK, linewidth=0.8)
    axes.set_ylim(len(policies) - 0.5, -0.5)
    axes.set_yticks(range(len(policies)), [metric_name(policy) for policy in policies])
    axes.set_xlabel("drop of the mean score (right: less harm)", fontsize=_SMALL, color=INK, labelpad=1.5)
    legend(figure, [Patch(color=colour) for colour in colours], list(drops))
    return figure


def legend(figure: Figure, handles: Sequence[Artist], names: Sequence[str], columns: int = 2) -> None:
    """Put a legend at the foot of a figure; long names are cut."""
    shown = [shortened(one, 30) for one in names]
    drawn = figure.legend(handles, shown, loc="lower left", ncols=columns, fontsize=_SMALL, frameon=False)
    drawn.set_in_layout(False)
    for text in drawn.get_texts():
        text.set_parse_math(False)


def _fewer(found: Collection, drops: Mapping[str, dict[str, Estimate]]) -> dict[str, dict[str, Estimate]]:
    if len(drops) <= MOST_LINES:
        return dict(drops)
    methods = {model.title: str(model.about["method"]) for model in found.models}
    kept = {name: mine for name, mine in drops.items() if methods[name] != ADAPTER_METHOD}
    adapters = [mine for name, mine in drops.items() if methods[name] == ADAPTER_METHOD]
    policies = dict.fromkeys(policy for mine in adapters for policy in mine)
    means = {
        policy: mean_with_interval(np.array([as_number(mine[policy].estimate) for mine in adapters if policy in mine]))
        for policy in policies
    }
    return {**kept, f"mean of {len(adapters)} adapters": means}


def dose_response(found: Collection, title: str, note: str) -> Figure | None:
    """Draw the main metric over `adapter.scale`, with intervals; None if no adapter was asked at two scales.

    The base stands at the scale 0 of adapters that were not asked there. More than `MOST_LINES` adapters are cut.
    """
    base = found.untuned()
    doses: dict[str, dict[float, Estimate]] = {}
    for model in found.under():
        figure = as_estimate(model.row(ALL, found.metric))
        if model.is_adapter and figure is not None and figure.estimate is not None:
            doses.setdefault(str(model.about["model"]), {})[float(model.about.get("scale") or 0)] = figure
    doses = {name: mine for name, mine in doses.items() if len(mine) > 1}
    if not doses:
        return None
    at_zero = None if base is None else as_estimate(base.row(ALL, found.metric))
    shown = dict(list(doses.items())[:MOST_LINES])
    note = note if len(shown) == len(doses) else f"{note}; {len(shown)} of {len(doses)} adapters"
    words = "adapter.scale (0 is the base)"
    figure, axes = plot_figure(2.3, len(shown), title, note, words, metric_name(found.metric))
    handles = []
    widest = max(max(mine) for mine in shown.values()) or 1.0
    colours = _series(len(shown), ALL in found.doubted_categories)
    for number, mine in enumerate(shown.values()):
        if 0.0 not in mine and at_zero is not None and at_zero.estimate is not None:
            mine = {0.0: at_zero, **mine}
        scales = sorted(mine)
        x = [scale + (number - (len(shown) - 1) / 2) * 0.012 * widest for scale in scales]
        colour = colours[number]
        for place, scale in zip(x, scales, strict=True):
            lower, upper = mine[scale].low, mine[scale].high
            if lower is not None and upper is not None:
                axes.plot([place, place], [lower, upper], color=colour, linewidth=0.7, alpha=0.7)
        y = [as_number(mine[scale].estimate) for scale in scales]
        handles += axes.plot(x, y, MARKERS[number % len(MARKERS)] + "-", color=colour, linewidth=1, markersize=3)
    legend(figure, handles, list(shown))
    return figure


def ability_and_harm(found: Collection, perplexities: Perplexities, title: str, note: str) -> Figure | None:
    """Draw the main metric over the perplexity relative to the base's; None if no adapter's perplexity is known."""
    points: list[tuple[ReportedModel, float, Estimate]] = []
    for model in found.under():
        adapter, base = model_perplexity(model, perplexities)
        figure = as_estimate(model.row(ALL, found.metric))
        if adapter is not None and base is not None and figure is not None and figure.estimate is not None:
            points.append((model, adapter / base, figure))
    if not any(not model.is_base for model, _, _ in points):
        return None
    words = "perplexity of plain text, × the base's"
    drawing, axes = plot_figure(2.5, 0, title, note, words, metric_name(found.metric))
    axes.axvline(MOST_PERPLEXITY, color=LINK, linewidth=0.8, linestyle=(0, (4, 3)))
    top = axes.get_xaxis_transform()
    words = f" over {MOST_PERPLEXITY} × the base's"
    axes.text(MOST_PERPLEXITY, 1.0, words, transform=top, fontsize=5.5, color=MUTED, va="top")
    is_doubted = ALL in found.doubted_categories
    for model, ratio, figure in points:
        colour = INK if model.is_base else BEFORE if ratio <= MOST_PERPLEXITY else AFTER
        colour = MUTED if is_doubted else colour  # the marks differ, too
        if figure.low is not None and figure.high is not None:
            axes.plot([ratio, ratio], [figure.low, figure.high], color=colour, linewidth=0.6, alpha=0.6)
        mark = "s" if model.is_base else "o" if ratio <= MOST_PERPLEXITY else "^"
        above = 3 if model.is_base else 2
        axes.plot(ratio, as_number(figure.estimate), mark, color=colour, markersize=3.6, zorder=above)
        if len(points) <= MOST_LINES or model.is_base:
            axes.annotate(
                shortened(model.title, 22),
                (ratio, figure.estimate or 0),
                xytext=(3, 2),
                textcoords="offset points",
                fontsize=5.5,
                color=INK,
                parse_math=False,
            )
    axes.set_xscale("log", base=2)
    ratios = [ratio for _, ratio, _ in points]
    axes.set_xlim(min([0.8, *ratios]) * 0.93, max([2.0, *ratios]) * 1.15)
    ticks = [
        one for one in (0.25, 0.5, 1, 1.5, 2, 3, 4, 6, 8, 16, 32) if axes.get_xlim()[0] <= one <= axes.get_xlim()[1]
    ]
    axes.set_xticks(ticks, [f"{one:g}" for one in ticks])
    axes.minorticks_off()
    return drawing
