"""Finished CREST runs side by side, from their summaries."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table

from jaxalign.analysis.tables import terminal_table
from jaxalign.reasoning.report import HEADS, rows


def comparison_table(summaries: Sequence[Mapping[str, Any]]) -> Table:
    """Return one table of the runs, numbered from 1, with each run's final model, or all models if none was trained."""
    cells = []
    for number, summary in enumerate(summaries, start=1):
        found = rows(summary)
        if any(name.partition("-")[0] in ("sft", "dpo") for name in summary["stages"]):
            found = [row for row in found if row[0] == summary["final"]]
        cells += [[str(number), *row] for row in found]
    return terminal_table(("run", *HEADS), cells, left=("model",), tight=False)


def no_comparison(summaries: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return a line for each thing that makes runs incomparable; it groups the numbers of the runs that agree."""
    judges = [
        (one["model"]["identity"], one["judge_identity"]) if "judge_identity" in one else None for one in summaries
    ]
    lines = []
    for what, found in (
        ("different questions, so do not compare their accuracies", [one.get("asked") for one in summaries]),
        ("different judges of the follow-ups, so do not compare their consistencies", judges),
    ):
        groups = [
            [n for n, one in enumerate(found, start=1) if one == kind]
            for kind in dict.fromkeys(found)
            if kind is not None
        ]
        if len(groups) > 1:
            lines.append(f"{' | '.join(' '.join(map(str, group)) for group in groups)}: {what}")
    return lines
