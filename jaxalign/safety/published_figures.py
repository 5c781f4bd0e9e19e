"""Our figures beside the published ones, row by row, with what is not comparable marked."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxalign.analysis.data_tables import Cell, DataTable
from jaxalign.analysis.estimates import Estimate
from jaxalign.analysis.intervals import mean_with_interval
from jaxalign.safety.calibration import judge_title
from jaxalign.safety.collection import ADAPTER_METHOD, Collection
from jaxalign.safety.mitigation import POLICIES
from jaxalign.safety.report_tables import Tags, as_estimate, category_name, with_judges

VANILLA, ALIGNED = "vanilla", "value-aligned"

HEX_PHI_SCORE = "harmfulness_score"


class PublishedScore(NamedTuple):
    """A published HEx-PHI harmfulness score, 1 to 5."""

    category: str
    model: str
    """`VANILLA` or `ALIGNED`."""
    mitigation: str
    score: float


PUBLISHED_SCORES = tuple(
    PublishedScore(category, model, policy, score)
    for category, model, scores in (
        ("adult_content", VANILLA, (4.31, 3.95, 3.96, 3.81)),
        ("adult_content", ALIGNED, (4.10, 2.87, 2.45, 2.43)),
        ("fraud_deception", VANILLA, (3.51, 3.34, 3.39, 3.09)),
        ("fraud_deception", ALIGNED, (3.43, 2.91, 2.69, 2.54)),
        ("political_campaigning", VANILLA, (3.94, 3.51, 3.55, 3.33)),
        ("political_campaigning", ALIGNED, (3.50, 2.87, 2.65, 2.30)),
    )
    for policy, score in zip(POLICIES[:4], scores, strict=True)
)
"""Choi et al. (2025, arXiv 2506.06404): by category and model without mitigation, with the safety prompt, the value
prompt, and both."""


def paper_table(found: Collection, name: str) -> DataTable:
    """Return our mean scores beside the published HEx-PHI scores; of adapters, the mean over them.

    Nothing is comparable on another benchmark than HEx-PHI or on another scale than 1 to 5. Even there the models and
    judges differ, so that only directions and drops can be set side by side.
    """
    scales = {one["judge"]: one["scale"][:2] for one in found.judges}
    titles: dict[str, str] = {one["judge"]: judge_title(one["judge"], one.get("model")) for one in found.judges}
    rows: list[list[Cell]] = []
    for one in PUBLISHED_SCORES:
        method = "base" if one.model == VANILLA else ADAPTER_METHOD
        models = [
            model
            for model in found.under(one.mitigation)
            if model.about["method"] == method and model.about.get("scale") in (None, 1, 1.0)
        ]
        ours = [row for model in models if (row := model.row(one.category, HEX_PHI_SCORE)) is not None]
        figure = as_estimate(ours[0]) if len(ours) == 1 else _mean(ours)
        judges = sorted({str(row["judge"]) for row in ours})
        why = _why_not(found, ours, [scales.get(judge) for judge in judges])
        rows.append(
            [
                category_name(one.category),
                one.model,
                one.mitigation,
                one.score,
                figure,
                f"{found.base}, {len(ours)} {'base' if one.model == VANILLA else 'adapters'}",
                " and ".join(titles.get(judge, str(judge)) for judge in judges),
                why,
            ]
        )
    heads = ("category", "model", "mitigation", "published", "ours", "our model", "our judge", "not comparable because")
    note = (
        "Published: Choi et al. (2025, arXiv 2506.06404), HEx-PHI, with other bases and another judge than here: "
        "scores can be set side by side only in their direction, and in how far mitigation lowers them."
    )
    tags: list[Tags] = [{"category": (one.category,), "mitigation": (one.mitigation,)} for one in PUBLISHED_SCORES]
    return with_judges(DataTable(f"{name}-paper", "Beside the published scores", heads, rows, [note], tags), found)


def _mean(rows: Sequence[Any]) -> Estimate | None:
    known = [row["estimate"] for row in rows if row["estimate"] is not None]
    return mean_with_interval(np.array(known, np.float64)) if known else None


def _why_not(found: Collection, ours: Sequence[Any], scales: Sequence[Any]) -> str:
    if not ours:
        return "not measured here"
    if found.name != "hex_phi":
        return f"other prompts ({found.name.replace('_', ' ')})"
    other = next((one for one in scales if one != [1, 5]), None)
    return "" if other is None else f"another scale ({other[0]:g} to {other[1]:g})"
