"""The table of a report on whether texts carry the values that adapters were trained towards."""

from collections.abc import Mapping, Sequence

import numpy as np

from jaxalign.analysis.correlation import correlations
from jaxalign.analysis.data_tables import Cell, DataTable
from jaxalign.analysis.estimates import Estimate
from jaxalign.safety.collection import ADAPTER_METHOD, Collection, ReportedModel
from jaxalign.safety.report_tables import Tags, metric_name, with_judges
from jaxalign.safety.summary import ALL
from jaxalign.safety.value_probe import ValueProbe
from jaxalign.values.schwartz import VALUES, label


def carried_table(found: Collection, name: str, probe: ValueProbe) -> DataTable | None:
    """Return, by value, what the responses carry and how that goes with target, measured score and harm.

    None if the responses of no adapter were read by this probe.
    """
    base = next((model for model in found.under() if model.is_base), None)
    models = [model for model in found.under() if _is_adapter(model) and _means(model, probe) is not None]
    if not models:
        return None
    by_target: dict[tuple[float, ...], list[ReportedModel]] = {}
    for model in models:
        by_target.setdefault(tuple(float(model.about["target"][value]) for value in VALUES), []).append(model)
    units = list(by_target.values())  # the mean over the seeds of a target is one unit
    targets = np.array(list(by_target))
    text = np.array([_mean([_row(_means(model, probe)) for model in unit]) for unit in units])
    measured = np.array([_mean([_row(model.about.get("measured")) for model in unit]) for unit in units])
    harm = np.array([_mean([_harm(found, model) for model in unit]) for unit in units])
    rows: list[list[Cell]] = []
    tags: list[Tags] = []
    of_base = _means(base, probe) if base is not None else None
    for place, value in enumerate(VALUES):
        mine = text[:, [place]]
        beside = [correlations(mine, other)[0][0] for other in (targets[:, [place]], measured[:, [place]], harm)]
        held_out = probe.held_out.get(value, Estimate(n=0))
        before = None if of_base is None else of_base[value]
        high = [row for row, unit in zip(mine[:, 0], units, strict=True) if value in unit[0].high_values]
        after = float(np.mean(high)) if high else None
        reason = next((one.reason for one in beside if one.estimate is None and one.reason), "")
        rows.append([label(value), held_out, before, after, *beside, len(units), reason])
        tags.append({"value": (value,)})
    heads = ("value", "held-out area", "base", "adapters high in it", "with the target", "with the measured score")
    heads = (*heads, f"with the {metric_name(found.metric)}", "n", "reason")
    notes = [
        "Base, adapters high in it: the mean probability, by a probe for values, that a response carries the value. "
        f"With ...: Spearman's correlation of that mean over {len(units)} targets.",
        "Held-out area: how often the probe ranks an argument with the value above one without, of arguments about "
        "conclusions that were left out of its fit; 0.5 is a coin. It was fitted to arguments, not to responses.",
    ]
    title = "Does the text carry the value?"
    return with_judges(DataTable(f"{name}-text-values", title, heads, rows, notes, tags), found)


def _is_adapter(model: ReportedModel) -> bool:
    about = model.about
    scaled = about.get("scale") not in (None, 1, 1.0)
    return about["method"] == ADAPTER_METHOD and bool(about.get("target")) and not about.get("control") and not scaled


def _means(model: ReportedModel, probe: ValueProbe) -> dict[str, float] | None:
    told = model.about.get("text_values") or {}
    return told["means"] if told.get("probe") == probe.identity else None


def _row(told: Mapping[str, float | None] | None) -> list[float]:
    numbers = [(told or {}).get(value) for value in VALUES]
    return [float("nan") if number is None else float(number) for number in numbers]


def _harm(found: Collection, model: ReportedModel) -> list[float]:
    row = model.row(ALL, found.metric)
    return [float("nan") if row is None or row["estimate"] is None else float(row["estimate"])]


def _mean(rows: Sequence[Sequence[float]]) -> list[float]:
    """Return the mean of each column over the rows that have a number in it."""
    columns = [[number for number in column if not np.isnan(number)] for column in zip(*rows, strict=True)]
    return [float(np.mean(column)) if column else float("nan") for column in columns]
