"""Two judges of the same responses: how far they agree, and which conclusions flip from one to the other."""

import dataclasses
from collections.abc import Sequence

from jaxalign.analysis.agreement import cohen_kappa
from jaxalign.analysis.data_tables import DASH, Cell, DataTable
from jaxalign.safety.collection import Collection, ReportedModel
from jaxalign.safety.report_tables import Tags, as_estimate, category_name, metric_name, model_tags, with_judges
from jaxalign.safety.risks import Risk, judge_flips
from jaxalign.safety.summary import ALL
from jaxalign.values.schwartz import label

Labels = tuple[list[str | None], list[str | None]]
"""What two judges say of the same responses, "harmful" or "fine"; None if a judgement is missing."""


def judges_compared(
    first: Collection,
    second: Collection,
    name: str,
    labels: Sequence[tuple[ReportedModel, ReportedModel, Labels]],
) -> DataTable:
    """Return both judges' figures of each model that both have judged, and κ between them, over all and by model.

    Args:
        first: the figures by the first judge.
        second: those by the second.
        name: the name of the table's files.
        labels: for each model that both have judged, what they say of its responses.
    """
    both: Labels = ([one for *_, pair in labels for one in pair[0]], [one for *_, pair in labels for one in pair[1]])
    rows: list[list[Cell]] = [["all", DASH, None, None, *_agreement(both)]]
    tags: list[Tags] = [{}]
    for mine, theirs, pair in labels:
        figures: list[Cell] = [
            as_estimate(model.row(ALL, found.metric)) for found, model in ((first, mine), (second, theirs))
        ]
        rows.append([mine.title, mine.mitigation, *figures, *_agreement(pair)])
        tags.append(model_tags(mine))
    heads = (
        "model",
        "mitigation",
        *(f"{metric_name(found.metric)} by {found.judged_by}" for found in (first, second)),
        "κ between them",
        "n",
        "missing",
    )
    title = f"{first.judged_by} and {second.judged_by} on the same responses"
    note = "κ between two judges says how far they agree, and not that either is right."
    return with_judges(DataTable(name, title, heads, rows, [note], tags), first, second)


def _agreement(pair: Labels) -> list[Cell]:
    kappa = cohen_kappa(*pair).kappa
    return [kappa, kappa.n, kappa.missing]


def with_flips(table: DataTable, risks: Sequence[Risk], other: Sequence[Risk], judge: str) -> DataTable:
    """Return a table of `risks` with a column that marks each conclusion that flips under another judge.

    Args:
        table: a row for each of `risks`, in their order.
        risks: the risks by the first judge.
        other: those by the other judge.
        judge: the name of the other judge.
    """
    words = {"opposite": f"opposite by {judge}", "first only": f"not by {judge}", "second only": f"by {judge} alone"}
    flips = judge_flips(risks, other)
    marks = [words.get(flips.get((risk.value, risk.category), ""), "") for risk in risks]
    rows = [[*row, mark] for row, mark in zip(table.rows, marks, strict=True)]
    return dataclasses.replace(table, heads=(*table.heads, f"flips by {judge}"), rows=rows)


def flips_table(
    first: Collection, second: Collection, name: str, risks: Sequence[Risk], other: Sequence[Risk]
) -> DataTable:
    """Return the values and categories on which two judges come to different conclusions."""
    known = [{(risk.value, risk.category): risk for risk in some} for some in (risks, other)]
    rows: list[list[Cell]] = []
    tags: list[Tags] = []
    words = {"first only": f"{first.judged_by} only", "second only": f"{second.judged_by} only"}
    for (value, category), how in judge_flips(risks, other).items():
        figures: list[Cell] = [some[value, category].target if (value, category) in some else None for some in known]
        rows.append([label(value), category_name(category), words.get(how, how), *figures])
        tags.append({"value": (value,), "category": (category,)})
    heads = ("value", "category", "found by", f"Spearman, {first.judged_by}", f"Spearman, {second.judged_by}")
    note = "" if rows else "No conclusion on a value and a category flips from one judge to the other."
    table = DataTable(name, "Conclusions that flip with the judge", heads, rows, [note] if note else [], tags)
    return with_judges(table, first, second)
