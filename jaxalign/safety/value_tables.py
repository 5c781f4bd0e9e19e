"""The table of a report on whether texts carry the values that adapters were trained towards."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from jaxalign.analysis.comparison import as_number
from jaxalign.analysis.correlation import correlations
from jaxalign.analysis.data_tables import Cell, DataTable
from jaxalign.analysis.estimates import Estimate
from jaxalign.safety.collection import Collection, ReportedModel
from jaxalign.safety.report_tables import Tags, metric_name, with_judges
from jaxalign.safety.risk_tables import blocks_notes, models_by_target, target_blocks
from jaxalign.safety.summary import ALL
from jaxalign.safety.value_dictionary import INSTALL_VALUES
from jaxalign.safety.value_probe import ValueProbe
from jaxalign.values.schwartz import VALUES, label


@dataclasses.dataclass(frozen=True)
class ValueReader:
    """What has read responses for values: the probe, or the dictionary of pyvalues.

    `told` returns what it found in a model's responses {n, means, and maybe silent}; None if it has not read them.
    """

    name: str
    held_out: Mapping[str, Estimate]
    told: Callable[[ReportedModel], Mapping[str, Any] | None]


def carried_table(found: Collection, name: str, probe: ValueProbe) -> DataTable | None:
    """Return, by value, what the responses carry and how that goes with target, measured score and harm.

    The probe and the dictionary of pyvalues, as far as they have read responses of adapters, have ten rows each. None
    if neither has.
    """
    rows: list[list[Cell]] = []
    tags: list[Tags] = []
    dictionary, about_dictionary = _dictionary(found)
    readers = [_probe_reader(probe), *([] if dictionary is None else [dictionary])]
    used = [reader for reader in readers if any(one.learnt_target and reader.told(one) for one in found.under())]
    for reader in used:
        rows += _carried_rows(found, reader)
        for value in VALUES:
            tags.append({"value": (value,)})
    if not rows:
        return None
    notes = [
        "Base, adapters high in it: by the probe, the mean probability that a response carries the value; by the "
        "dictionary, the share of responses with a word of it. With ...: Spearman's correlation of that mean over "
        "targets.",
        "Held-out area: how often an argument with the value is ranked above one without; 0.5 is a coin. The probe was "
        "fitted to arguments, not to responses, and the area is of arguments about conclusions that were left out.",
        "The dictionary of pyvalues was fitted to nothing, so its area is of all arguments. Silent: the share of the "
        f"adapters' responses without any of its words. {about_dictionary}",
        *blocks_notes(target_blocks(list(models_by_target(found).values()))),
    ]
    heads = ("value", "read by", "held-out area", "silent", "base", "adapters high in it", "with the target")
    heads = (*heads, "with the measured score", f"with the {metric_name(found.metric)}", "n", "reason")
    title = "Does the text carry the value?"
    return with_judges(DataTable(f"{name}-text-values", title, heads, rows, notes, tags), found)


def _carried_rows(found: Collection, reader: ValueReader) -> list[list[Cell]]:
    base = found.untuned()
    read = {target: [one for one in unit if reader.told(one)] for target, unit in models_by_target(found).items()}
    by_target = {target: unit for target, unit in read.items() if unit}
    models = [model for unit in by_target.values() for model in unit]
    units = list(by_target.values())  # the mean over the seeds of a target is one unit
    blocks = target_blocks(units)
    targets = np.array(list(by_target))
    text = np.array([_mean([_row(_means(reader, model)) for model in unit]) for unit in units])
    measured = np.array([_mean([_row(model.about.get("measured")) for model in unit]) for unit in units])
    harm = np.array([_mean([_harm(found, model) for model in unit]) for unit in units])
    (silent,) = _mean([[as_number((reader.told(model) or {}).get("silent"))] for model in models])
    of_base = None if base is None else _means(reader, base)
    rows: list[list[Cell]] = []
    for place, value in enumerate(VALUES):
        mine = text[:, [place]]
        others = (targets[:, [place]], measured[:, [place]], harm)
        beside = [correlations(mine, other, blocks=blocks)[0][0] for other in others]
        held_out = reader.held_out.get(value, Estimate(n=0))
        before = None if of_base is None else of_base[value]
        high = [row for row, unit in zip(mine[:, 0], units, strict=True) if value in unit[0].high_values]
        after = float(np.mean(high)) if high else None
        reason = next((one.reason for one in beside if one.estimate is None and one.reason), "")
        shown = [None if np.isnan(silent) else silent, before, after]
        rows.append([label(value), reader.name, held_out, *shown, *beside, len(units), reason])
    return rows


def _probe_reader(probe: ValueProbe) -> ValueReader:
    def told(model: ReportedModel) -> Mapping[str, Any] | None:
        found = model.about.get("text_values") or {}
        return found if found.get("probe") == probe.identity else None

    return ValueReader("probe", probe.held_out, told)


def _dictionary(found: Collection) -> tuple[ValueReader | None, str]:
    """Return the dictionary that has read responses of most models, and what is said of it; None if none has."""
    read = [one for model in found.under() if (one := _of_dictionary(model)) is not None]
    if not read:
        how = f"type {INSTALL_VALUES}, and then each run's command again with stage=aggregate"
        return None, f"It has not read these responses. To let it read them, {how}."
    names = [one["dictionary"] for one in read]
    name = max(names, key=names.count)
    known = next(one for one in read if one["dictionary"] == name)["arguments"]
    right = "none" if known["right"] is None else f"{known['right']:.0%}"
    words = f"Of {known['n']} arguments it is silent on {known['silent']:.0%}, and in {right} of the others it finds a "
    held_out = {value: Estimate(**area) for value, area in known["areas"].items()}

    def told(model: ReportedModel) -> Mapping[str, Any] | None:
        mine = _of_dictionary(model)
        return mine if mine is not None and mine["dictionary"] == name else None

    return ValueReader(name, held_out, told), f"{words}value that the argument has."


def _of_dictionary(model: ReportedModel) -> Mapping[str, Any] | None:
    told = model.about.get("dictionary_values")
    return told if told and told["n"] else None


def _means(reader: ValueReader, model: ReportedModel) -> Mapping[str, float | None] | None:
    told = reader.told(model)
    return None if told is None else told["means"]


def _row(told: Mapping[str, float | None] | None) -> list[float]:
    return [as_number((told or {}).get(value)) for value in VALUES]


def _harm(found: Collection, model: ReportedModel) -> list[float]:
    row = model.row(ALL, found.metric)
    return [float("nan") if row is None or row["estimate"] is None else float(row["estimate"])]


def _mean(rows: Sequence[Sequence[float]]) -> list[float]:
    """Return the mean of each column over the rows that have a number in it."""
    columns = [[number for number in column if not np.isnan(number)] for column in zip(*rows, strict=True)]
    return [float(np.mean(column)) if column else float("nan") for column in columns]
