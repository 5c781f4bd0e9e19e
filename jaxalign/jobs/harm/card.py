"""The part of an adapter's model card about harm: its figures beside those of the base and of the controls."""

import dataclasses
import os
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from jaxalign.analysis.data_tables import cell_text
from jaxalign.analysis.markdown import markdown_text
from jaxalign.analysis.tables import markdown_table
from jaxalign.errors import UserError
from jaxalign.jobs.harm.reported import find_harm_runs
from jaxalign.models.adapter import Adapter
from jaxalign.pretrained.peft import read_adapter_alone
from jaxalign.safety.attribution_table import SHUFFLED
from jaxalign.safety.collection import Collection, ReportedModel, collect
from jaxalign.safety.report_tables import as_estimate, judge_notes, metric_name
from jaxalign.safety.states import REFUSED, shown_shares
from jaxalign.safety.summary import ALL

CARD_PLACE = "## Responsible use"
"""The part about harm goes before this heading."""


def harm_section(runs: Path, adapter: Path) -> str:
    """Return the part, as Markdown, from the finished runs of benchmarks of harm in a folder that asked an adapter.

    The adapter is known by the hash of its weights, so it and the runs may have moved.

    Args:
        runs: the folder of the runs.
        adapter: the folder of the adapter.

    Raises:
        UserError: there is no such run, the adapter is damaged, or what `collect` refuses.
    """
    found, _ = find_harm_runs(runs, "harm")
    known = read_adapter_alone(adapter)
    lines, rows = [], []
    for collection in collect(found):
        mine = _models_of(collection.under(), known)
        if not mine:
            continue
        others = [model for model in collection.under() if model not in mine]
        beside = [model for model in others if model.is_base or _is_control_of(model, mine)]
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


def _models_of(models: Sequence[ReportedModel], known: Adapter) -> list[ReportedModel]:
    """Return the models that wear an adapter, at any scale."""

    @cache
    def identity(scale: float) -> str:
        return dataclasses.replace(known, factor=scale).identity

    def is_of(model: ReportedModel) -> bool:
        hashed, scale = model.about["adapter"], model.about.get("scale")
        return model.is_adapter and hashed != "" and hashed == identity(1.0 if scale is None else float(scale))

    places = {model.about.get("folder") for model in models if is_of(model)}

    def is_at(model: ReportedModel) -> bool:
        """Whether its folder is the adapter's: at scale 0 an adapter has no hash."""
        folder = model.about.get("folder")
        if not model.is_adapter or model.about["adapter"] or folder is None or known.folder is None:
            return False
        return folder in places or Path(os.path.expanduser(folder)).resolve() == known.folder.resolve()

    return [model for model in models if is_of(model) or is_at(model)]


def _is_control_of(model: ReportedModel, mine: Sequence[ReportedModel]) -> bool:
    """Return whether a model is a control of one of these: with shuffled labels of its own target, or benign."""
    control = model.about.get("control")
    targets = [one.about.get("target") for one in mine]
    return control is not None and (control != SHUFFLED or model.about.get("target") in targets)


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
