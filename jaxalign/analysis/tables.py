"""Tables of results."""

from collections.abc import Mapping
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from jaxalign.values.schwartz import VALUES, label

Reading = Mapping[str, Any]
"""A reading of the questionnaire, as `jaxalign.values.portraits.read_questions` returns it."""


def profile_table(target: Mapping[str, float] | None, before: Reading, after: Reading) -> Table:
    """Return a table of the ten values: target score (left out where there is no target), and two readings' scores.

    The values that the target has highest stand out; a score that could not be read is a dash.
    """
    table = Table(box=SIMPLE_HEAD, header_style="bold", pad_edge=False)
    table.add_column("value")
    columns: dict[str, Mapping[str, float | None]] = {} if target is None else {"target": target}
    columns |= {"before": before["scores"], "after": after["scores"]}
    for name in columns:
        table.add_column(name, justify="right")
    highest = _highest(target)
    for value in VALUES:
        cells = [label(value), *(number(scores[value]) for scores in columns.values())]
        if value in highest:
            cells[0] += " ←"  # seen without colours too
        table.add_row(*map(Text, cells), style="bold cyan" if value in highest else None)
    return table


def summary_lines(before: Reading, after: Reading, best_constant: float | None) -> list[str]:
    """Return what to read beside the table: two readings' fit to the target, and what could not be read.

    Without a target `best_constant` is None, and nothing is said of the fit.
    """
    lines = []
    if best_constant is not None:
        error, shape = (
            f"before {number(before[key], 3)} · after {number(after[key], 3)}" for key in ("nmse", "nmse_centred")
        )
        lines += [
            f"NMSE, less is better {error} · best constant {number(best_constant, 3)}",
            f"NMSE after centring  {shape}",
            f"Profile correlation  before {_correlation(before)} · after {_correlation(after)}",
        ]
    for name, reading in (("before", before), ("after", after)):
        if reading["missing"]:
            lines.append(f"Portraits that could not be read {name}: {reading['missing']}")
    return lines


def number(score: float | None, digits: int = 2) -> str:
    """Return a number for a cell, or a dash for None."""
    return "–" if score is None else f"{score:.{digits}f}"


def _correlation(reading: Reading) -> str:
    return f"{number(reading['pearson'])} (rank {number(reading['spearman'])})"


def _highest(target: Mapping[str, float] | None) -> set[str]:
    """Return the values at the target's highest score; none for a flat target."""
    if target is None or len(set(target.values())) == 1:
        return set()
    return {value for value in VALUES if target[value] == max(target.values())}
