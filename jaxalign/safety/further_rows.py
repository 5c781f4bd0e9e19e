"""What a second run of the same model adds to the figures of the first."""

from collections.abc import Mapping, Sequence
from typing import Any

from jaxalign.errors import UserError


def further_rows(
    one: Sequence[Mapping[str, Any]], other: Sequence[Mapping[str, Any]], both: str
) -> list[Mapping[str, Any]]:
    """Return the rows of another run of the same model whose metrics the first lacks.

    Such are corrected rates (`judge.corrected`), and the bias score by another rule (`benchmark.bias_rule`) or above
    another baseline.

    Args:
        one: the rows of the first run (see summary.py).
        other: those of the other.
        both: names the two runs at the beginning of the error line.

    Raises:
        UserError: they have different figures of one metric, or no metric in common.
    """
    mine, others = _figures_by_metric(one), _figures_by_metric(other)
    shared = [metric for metric in mine if metric in others]
    unlike = [metric.replace("_", " ") for metric in shared if mine[metric] != others[metric]]
    if unlike or (mine and others and not shared):
        which = f" ({', '.join(unlike)})" if unlike else ""
        raise UserError(
            f"{both} with different figures{which}: type the commands of both again, which adds them up anew, or move "
            "one of them to another folder"
        )
    return [row for row in other if row["metric"] not in mine]


def _figures_by_metric(rows: Sequence[Mapping[str, Any]]) -> dict[str, set[tuple[Any, ...]]]:
    """Return what rows say, by metric, whatever their order."""
    found: dict[str, set[tuple[Any, ...]]] = {}
    for row in rows:
        told = tuple(row.get(key) for key in ("judge", "category", "estimate", "n"))
        found.setdefault(row["metric"], set()).add(told)
    return found
