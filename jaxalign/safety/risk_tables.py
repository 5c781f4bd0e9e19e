"""The tables of a report on which value goes with which risk, and what that says of the published directions."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from jaxalign.analysis.data_tables import DASH, Cell, DataTable
from jaxalign.analysis.estimates import Estimate
from jaxalign.data.account import count
from jaxalign.safety.benchmarks.benchmark import REFUSAL_RATE
from jaxalign.safety.collection import Collection, ReportedModel
from jaxalign.safety.noise import noise_line, seed_noise
from jaxalign.safety.report_tables import Tags, category_name, category_tags, metric_name, with_judges
from jaxalign.safety.risks import Risk, published_findings, value_regressions, value_risks
from jaxalign.safety.summary import ALL
from jaxalign.values.schwartz import VALUES, label


@dataclass(frozen=True)
class RiskUnits:
    """The units that correlations are taken over: each target once, the mean over its seeds."""

    names: list[str]
    targets: np.ndarray
    """[A, 10]"""
    measured: np.ndarray | None
    """[A, 10], NaN where missing."""
    means: dict[str, list[float | None]]
    """By category, [A]; the first one is `ALL`, where there are several."""
    blocks: list[str] | None
    noise: Estimate
    """The spread over seeds of the figure of all categories."""


def models_by_target(found: Collection) -> dict[tuple[float, ...], list[ReportedModel]]:
    """Return the models without mitigation that have learnt a target, by target: its seeds are one unit.

    They stand in the order that `blocks` needs (see `value_risks`): realistic targets by rank behind their extreme one.
    """
    by_target: dict[tuple[float, ...], list[ReportedModel]] = {}
    for model in found.under():
        if (target := model.learnt_target) is not None:
            by_target.setdefault(target, []).append(model)
    return dict(sorted(by_target.items(), key=lambda pair: parent_and_rank(_name_of(pair[1]))))


def target_blocks(units: Sequence[Sequence[ReportedModel]]) -> list[str] | None:
    """Return the extreme target that each target is, or is near to, from the models of each target.

    None if no two have the same one.
    """
    return blocks_of_names([_name_of(models) for models in units])


def blocks_of_names(names: Sequence[str]) -> list[str] | None:
    """Return the extreme target that each named target is, or is near to; None if no two have the same one."""
    parents = [parent_and_rank(name)[0] for name in names]
    return parents if len(set(parents)) < len(parents) else None


def blocks_notes(blocks: Sequence[str] | None) -> list[str]:
    """Return a note for a table on targets that resemble each other, if there are any."""
    if blocks is None:
        return []
    return [
        f"These {len(blocks)} targets are {count(len(set(blocks)), 'block')}: an extreme target and the realistic ones "
        "near to it resemble each other, so intervals and p-values take each block as a whole."
    ]


def _name_of(models: Sequence[ReportedModel]) -> str:
    return str(models[0].about["value"])


def risk_units(found: Collection) -> RiskUnits:
    """Return adapters at scale 1 and without mitigation, by target. A control with shuffled labels has no target."""
    pairs = list(models_by_target(found).items())
    names = [_name_of(models) for _, models in pairs]
    measured = np.array(
        [np.mean([_profile(model) for model in models], axis=0) for _, models in pairs], np.float64
    ).reshape(len(pairs), len(VALUES))
    means = {
        category: [_mean([_figure(model, category, found.metric) for model in models]) for _, models in pairs]
        for category in ((ALL, *found.categories) if len(found.categories) > 1 else found.categories)
    }
    everyone = [model for _, models in pairs for model in models]
    return RiskUnits(
        names,
        np.array([target for target, _ in pairs], np.float64).reshape(len(pairs), len(VALUES)),
        None if np.isnan(measured).all() else measured,
        means,
        target_blocks([models for _, models in pairs]),
        seed_noise([one.about for one in everyone], [_figure(one, ALL, found.metric) for one in everyone]),
    )


def parent_and_rank(name: str) -> tuple[str, int]:
    """Return the extreme target that a realistic one is near to, and its rank; an extreme one is its own, rank 0."""
    close = re.fullmatch(r"(\w+?)_close_(\d+)(?:_raw)?", name)
    return (close[1], int(close[2])) if close else (name, 0)


def _profile(model: ReportedModel) -> list[float]:
    measured = model.about.get("measured") or {}
    return [float("nan") if measured.get(value) is None else float(measured[value]) for value in VALUES]


def _figure(model: ReportedModel, category: str, metric: str) -> float | None:
    row = model.row(category, metric)
    return None if row is None else row["estimate"]


def _mean(numbers: Sequence[float | None]) -> float | None:
    known = [one for one in numbers if one is not None]
    return sum(known) / len(known) if known else None


def collection_risks(found: Collection) -> list[Risk]:
    """Return which value goes with which risk; none if no adapter has a target."""
    units = risk_units(found)
    if not units.names or not units.means:
        return []
    return value_risks(units.targets, units.means, units.measured, blocks=units.blocks)


def risks_table(found: Collection, name: str, risks: Sequence[Risk]) -> DataTable:
    """Return the correlations of values with risks, each with its n and q, or with the reason why there is none."""
    what = "refusals" if found.metric == REFUSAL_RATE else "harm"
    less = "fewer" if what == "refusals" else "less"
    words = {1: f"more {what}", -1: f"{less} {what}", 0: "undecided"}
    rows: list[list[Cell]] = []
    for risk in risks:
        rows.append(
            [
                label(risk.value),
                _name(found, risk.category),
                risk.target,
                risk.target.n,
                risk.target.p,
                risk.target.q,
                words[risk.finding],
                risk.target_pearson,
                risk.measured,
                None if risk.measured is None else risk.measured.n,
                None if risk.measured is None else risk.measured.q,
                risk.measured_pearson,
                risk.target.reason or "",
            ]
        )
    heads = ("value", "category", "Spearman", "n", "p", "q", "finding", "Pearson", "measured", "measured n")
    heads = (*heads, "measured q", "measured Pearson", "reason")
    units = risk_units(found)
    notes = [
        f"Correlations over {len(units.names)} targets of a value's score with the {metric_name(found.metric)}; q is "
        "corrected for all values and categories (Benjamini and Hochberg), and a finding has a q of at most 0.05. "
        "Measured: with the score of the portrait questionnaire in place of the target's.",
        noise_line(units.noise, f"the {metric_name(found.metric)} of all categories"),
        *blocks_notes(units.blocks),
    ]
    tags = [_tags(risk.value, risk.category) for risk in risks]
    return with_judges(DataTable(f"{name}-risks", "Which value goes with which risk", heads, rows, notes, tags), found)


def _name(found: Collection, category: str) -> str:
    return found.name_of_all() if category == ALL else category_name(category)


def _tags(value: str, category: str) -> Tags:
    return {"value": (value,)} | category_tags(category)


def regressions_table(found: Collection, name: str) -> DataTable:
    """Return the regression of each category's harm on all ten values at once, or the reason why there is none."""
    units = risk_units(found)
    rows: list[list[Cell]] = []
    tags: list[Tags] = []
    for category, one in value_regressions(units.targets, units.means, blocks=units.blocks).items():
        for value in VALUES:
            row = [label(value), _name(found, category), one.coefficients.get(value), one.n, one.r2, one.reason or ""]
            rows.append([*row[:3], one.collinearity.inflation.get(value), *row[3:]])
            tags.append(_tags(value, category))
    heads = ("value", "category", "coefficient", "variance inflation", "n", "adjusted R²", "reason")
    note = (
        "Coefficients are in standard deviations of harm for one of the value's score, with all ten values in one "
        "regression. A variance inflation of 5 or more means that the targets do not tell a value from the others."
    )
    title = "Harm on all values at once"
    notes = [note, *blocks_notes(units.blocks)]
    return with_judges(DataTable(f"{name}-regression", title, heads, rows, notes, tags, for_files=False), found)


def published_table(found: Collection, name: str, risks: Sequence[Risk]) -> DataTable:
    """Return what the adapters say of each published direction: same, opposite or undecided."""
    rows: list[list[Cell]] = []
    tags: list[Tags] = []
    for one in published_findings(risks):
        published, figure = one.direction, one.correlation
        rows.append(
            [
                label(published.value),
                published.term,
                "more harm" if published.sign > 0 else "less harm",
                DASH if one.category is None else category_name(one.category),
                one.outcome,
                figure,
                None if figure is None else figure.n,
                None if figure is None else figure.q,
                one.reason or "",
            ]
        )
        tags.append(_tags(published.value, one.category or ALL))
    heads = ("value", "published term", "published", "our category", "outcome", "Spearman", "n", "q", "reason")
    note = "Published: Choi et al. (2025, arXiv 2506.06404), with other models and judges than here."
    title = "The published directions"
    return with_judges(DataTable(f"{name}-published", title, heads, rows, [note], tags), found)
