"""The part of an adapter's model card about harm: its figures beside those of the base and of the controls."""

import os
from pathlib import Path

from jaxalign.analysis.data_tables import cell_text
from jaxalign.analysis.markdown import markdown_text
from jaxalign.analysis.tables import markdown_table
from jaxalign.errors import UserError
from jaxalign.jobs.harm.reported import find_harm_runs
from jaxalign.safety.collection import Collection, ReportedModel, collect
from jaxalign.safety.report_tables import as_estimate, judge_notes, metric_name
from jaxalign.safety.states import REFUSED, shown_shares
from jaxalign.safety.summary import ALL

CARD_PLACE = "## Responsible use"
"""The part about harm goes before this heading."""


def harm_section(runs: Path, adapter: Path) -> str:
    """Return the part, as Markdown, from the finished runs of benchmarks of harm in a folder that asked an adapter.

    Args:
        runs: the folder of the runs.
        adapter: the folder of the adapter.

    Raises:
        UserError: there is no such run, or what `collect` refuses.
    """
    found, _ = find_harm_runs(runs)
    lines, rows = [], []
    for collection in collect(found):
        mine = [model for model in collection.under() if _is_of(model, adapter)]
        if not mine:
            continue
        others = [model for model in collection.under() if model not in mine]
        beside = [model for model in others if model.is_base or model.about.get("control")]
        rows += [_row(collection, model) for model in [*mine, *beside]]
        lines += [f"- {markdown_text(collection.name)}: {markdown_text(line)}" for line in judge_notes(collection)]
    if not rows:
        raise UserError(
            f"harm={runs} holds no finished run of a benchmark of harm that asked {adapter}: "
            f"python -m jaxalign.evaluate benchmark=starter_probes adapter={adapter} makes one"
        )
    heads = ["benchmark", "model", "figure", "with its 95 % interval", "n", "refused, of what says something"]
    note = "Each figure is what a judge says, without mitigation. Its agreement with labels (κ) stands below."
    return "\n\n".join(["## Harm", note, markdown_table(heads, rows), "\n".join(lines)])


def _is_of(model: ReportedModel, adapter: Path) -> bool:
    folder = model.about.get("folder")
    return folder is not None and Path(os.path.expanduser(folder)).resolve() == adapter.resolve()


def _row(found: Collection, model: ReportedModel) -> list[str]:
    row = model.row(ALL, found.metric)
    doubt = found.doubts.get((row or {}).get("judge", ""))
    refused = shown_shares((row or {}).get("states") or {}).get(REFUSED)
    return [
        found.name,
        model.title,
        f"{metric_name(found.metric)} by {found.judged_by}{f' ({doubt})' if doubt else ''}",
        cell_text(as_estimate(row)),
        "–" if row is None else str(row["n"]),
        "–" if refused is None else f"{100 * refused:.0f} %",
    ]


def with_harm(card: str, section: str) -> str:
    """Return a card with the part about harm, before what it says on responsible use."""
    before, heading, behind = card.partition(CARD_PLACE)
    return f"{before}{section}\n\n{heading}{behind}" if heading else f"{card.rstrip()}\n\n{section}\n"
