"""Two judges of the same responses: how far they agree, and which conclusions flip from one to the other."""

import dataclasses
from collections.abc import Sequence

from jaxalign.analysis.agreement import cohen_kappa
from jaxalign.analysis.data_tables import DASH, Cell, DataTable
from jaxalign.analysis.estimates import Estimate
from jaxalign.safety.collection import Collection, ReportedModel
from jaxalign.safety.report_tables import Tags, as_estimate, category_name, metric_name, model_tags, with_judges
from jaxalign.safety.risks import Risk, judge_flips, sign_flips
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
    flips = judge_flips(risks, other)
    return _marked(table, [flips.get((risk.value, risk.category)) for risk in risks], judge)


def _marked(table: DataTable, flips: Sequence[str | None], judge: str) -> DataTable:
    """Return a table with a column that says of each row how it flips under another judge, if it does."""
    words = {"opposite": f"opposite by {judge}", "first only": f"not by {judge}", "second only": f"by {judge} alone"}
    rows = [[*row, words.get(how or "", "")] for row, how in zip(table.rows, flips, strict=True)]
    return dataclasses.replace(table, heads=(*table.heads, f"flips by {judge}"), rows=rows)


DIFFERENCES = {
    "beside-base": (("model", "measure"), "difference"),
    "groups": (("compared", "with", "category", "measure", "models"), "difference"),
    "drops": (("model", "mitigation", "category"), "drop"),
}
"""The tables of differences of which two judges have one each: the columns that say of what, and that of the figure."""


@dataclasses.dataclass(frozen=True)
class FlippedDifferences:
    """The tables of differences of two judges, with the rows marked whose sign is not the same by both."""

    first: DataTable
    second: DataTable
    rows: list[list[Cell]]
    """Each marked row: the table's title, what the difference is of, who finds it, and both figures."""
    tags: list[Tags]


def flipped_differences(kind: str, tables: tuple[DataTable, DataTable], judges: tuple[str, str]) -> FlippedDifferences:
    """Return two judges' tables of one kind of `DIFFERENCES` with their flips marked, as those of risks are.

    The sign of a difference is found if its interval excludes 0. Differences of other models are not compared.
    """
    known = [_differences(table, *DIFFERENCES[kind]) for table in tables]
    signs = [{key: figure.sign for key, (_, figure) in mine.items()} for mine in known]

    def marked(here: int, there: int) -> DataTable:
        flips = {known[here][key][0]: how for key, how in sign_flips(signs[here], signs[there]).items()}
        return _marked(tables[here], [flips.get(row) for row in range(len(tables[here].rows))], judges[there])

    words = {"first only": f"{judges[0]} only", "second only": f"{judges[1]} only"}
    rows: list[list[Cell]] = []
    tags: list[Tags] = []
    for key, how in sign_flips(*signs).items():
        rows.append([tables[0].title, ", ".join(key), words.get(how, how), *(mine[key][1] for mine in known)])
        tags.append(tables[0].tags[known[0][key][0]])
    return FlippedDifferences(marked(0, 1), marked(1, 0), rows, tags)


def _differences(table: DataTable, columns: Sequence[str], figure: str) -> dict[tuple[str, ...], tuple[int, Estimate]]:
    """Return the row and the figure of each difference of a table; of several of one thing, that of the most units."""
    found: dict[tuple[str, ...], tuple[int, Estimate]] = {}
    places, place = [table.heads.index(one) for one in columns], table.heads.index(figure)
    for number, row in enumerate(table.rows):
        key, cell = tuple(str(row[one]) for one in places), row[place]
        if isinstance(cell, Estimate) and (key not in found or cell.n > found[key][1].n):
            found[key] = (number, cell)
    return found


def differences_table(
    first: Collection, second: Collection, name: str, flipped: Sequence[FlippedDifferences]
) -> DataTable:
    """Return the differences whose sign is not the same by two judges."""
    rows = [row for one in flipped for row in one.rows]
    heads = ("table", "difference", "found by", f"by {first.judged_by}", f"by {second.judged_by}")
    note = "A difference is found if its interval excludes 0."
    none = "" if rows else " None flips from one judge to the other."
    tags = [tags for one in flipped for tags in one.tags]
    table = DataTable(name, "Differences that flip with the judge", heads, rows, [note + none], tags)
    return with_judges(table, first, second)


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
