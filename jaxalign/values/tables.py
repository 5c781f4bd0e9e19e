"""Readings of the questionnaire side by side: as CSV, as Markdown, and as tables for the terminal."""

import csv
import dataclasses
import io
from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table
from rich.text import Text

from jaxalign.analysis.markdown import markdown_text
from jaxalign.analysis.tables import markdown_table, number, terminal_table, widest_that_fits
from jaxalign.runs.expected import Expected, Maybe
from jaxalign.values.profile import best_constant_nmse
from jaxalign.values.schwartz import VALUES, label
from jaxalign.values.targets import Target

FITS = ("nmse", "nmse_centred", "pearson", "spearman")
COUNTS = ("missing", "named_value_accuracy", "perplexity")

_TEN_SCORES: dict[str, Expected] = dict.fromkeys(VALUES, int | float | None)
_TARGET: dict[str, Expected] = dict.fromkeys(VALUES, int | float)

READING: dict[str, Expected] = {
    "scores": _TEN_SCORES,
    **dict.fromkeys(("argmax_scores", "choice_scores"), Maybe(_TEN_SCORES)),
    **dict.fromkeys((*FITS, *COUNTS), Maybe(int | float)),
}
"""A stored reading of the questionnaire (see `runs.expected.flaw`)."""

ROW: dict[str, Expected] = {
    **dict.fromkeys(("name", "method", "reading"), str),
    **{"scale": Maybe(int | float), "value": Maybe(str), "target": Maybe(_TARGET)},
    **READING,
}
"""A stored `TableRow`."""

READINGS: dict[str, Expected] = {
    "questionnaire": {"before": Maybe(READING), "after": Maybe(READING)},
    **{"target": Maybe(_TARGET), "best_constant_nmse": Maybe(int | float)},
}
"""What a training's summary keeps of the questionnaire."""


@dataclasses.dataclass(frozen=True)
class TableRow:
    """One reading of one model.

    `method` says how the model was aligned: base, role-play, adapter, or constant (a baseline). `reading` says how its
    answers were read: likelihood, parse or none. `results` has `scores` by value, and of the keys in `FITS` and
    `COUNTS` the known ones. `scale` is the factor on the adapter's effect.
    """

    name: str
    method: str
    reading: str
    target: Target | None
    results: Mapping[str, Any]
    scale: float | None = None

    @property
    def title(self) -> str:
        """The name, with the scale where it is not 1, so that the rows of a sweep over the scale differ."""
        return self.name if self.scale in (None, 1) else f"{self.name} × {self.scale:g}"

    def as_dict(self) -> dict[str, Any]:
        """Return the row as a dictionary that JSON can hold."""
        target = None if self.target is None else dict(zip(VALUES, self.target.scores, strict=True))
        value = None if self.target is None else self.target.name
        head = {"name": self.name, "method": self.method, "scale": self.scale, "reading": self.reading}
        return {**head, "value": value, "target": target, **self.results}

    @classmethod
    def from_dict(cls, row: Mapping[str, Any]) -> "TableRow":
        """Return the row that `as_dict` was made from."""
        head = ("name", "method", "scale", "reading", "value", "target")
        scores = row.get("target")
        target = None if scores is None else Target(str(row.get("value")), tuple(scores[value] for value in VALUES))
        results = {key: found for key, found in row.items() if key not in head}
        return cls(row["name"], row["method"], row["reading"], target, results, row.get("scale"))


def baselines(targets: Sequence[Target | None]) -> list[TableRow]:
    """Return a row for each different target: the best result of a model that gives every portrait the same score."""
    rows = []
    for target in dict.fromkeys(targets):
        if target is not None:
            mean = sum(target.scores) / len(VALUES)
            results = {"scores": dict.fromkeys(VALUES, mean), "nmse": best_constant_nmse(target.scores)}
            rows.append(TableRow("best constant", "constant", "none", target, results))
    return rows


def as_csv(rows: Sequence[TableRow]) -> str:
    """Return the rows as CSV, at full precision; a cell without a result is empty.

    Columns: name, method, scale, reading, value, the ten scores (1..6), how they fit the target, how many portraits
    could not be read, the share of portraits whose value was named, perplexity, the ten most probable scores (argmax,
    1..6), and the ten scores of the choice format (0..1).
    """
    text = io.StringIO()
    columns = ["name", "method", "scale", "reading", "value"]
    columns += [*VALUES, *FITS, *COUNTS, *(f"{kind}_{value}" for kind in ("argmax", "choice") for value in VALUES)]
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    for row in rows:
        results = row.results
        cells = [row.name, row.method, row.scale, row.reading, "" if row.target is None else row.target.name]
        cells += [results["scores"][value] for value in VALUES]
        cells += [results.get(key) for key in (*FITS, *COUNTS)]
        for kind in ("argmax_scores", "choice_scores"):
            cells += [(results.get(kind) or {}).get(value) for value in VALUES]
        writer.writerow(cells)
    return text.getvalue()


def as_markdown(rows: Sequence[TableRow], model_name: str) -> str:
    """Return a Markdown page with a table of fits to the targets and a table of scores."""
    heads = ["", "target", "read by", "NMSE", "centred", "Pearson", "Spearman", "missing", "value named", "perplexity"]
    fits = [
        [
            row.title,
            "" if row.target is None else row.target.name,
            {"none": ""}.get(row.reading, row.reading),
            *(number(row.results.get(key), 3) for key in FITS[:2]),
            *(number(row.results.get(key)) for key in FITS[2:]),
            str(row.results.get("missing", "–")),
            number(row.results.get("named_value_accuracy")),
            number(row.results.get("perplexity"), 1),
        ]
        for row in rows
    ]
    scores = [
        [row.title, {"none": ""}.get(row.reading, row.reading), what, *(number(found[v]) for v in VALUES)]
        for row in rows
        for what, found in _profiles(row).items()
    ]
    return "\n".join(
        [
            f"# Portrait questionnaire: {markdown_text(model_name)}",
            "",
            "NMSE: mean squared difference from the target, both scaled to 0..1; less is better. One constant answer",
            "can have a low NMSE, so compare it with the best constant, the bare base and the profile's correlation.",
            "",
            markdown_table(heads, fits),
            "",
            "Scores, 1 (not important) to 6 (very important): expected, most probable (argmax), stated in an answer.",
            "Choice, 0 to 1: the probability that the value's person is preferred to another; never trained.",
            "",
            markdown_table(["", "read by", "score", *map(label, VALUES)], scores),
            "",
        ]
    )


def _profiles(row: TableRow) -> dict[str, Mapping[str, float | None]]:
    """Return the ten-score profiles of a reading by kind: expected or stated, argmax, choice."""
    found = {
        {"likelihood": "expected", "parse": "stated"}.get(row.reading, ""): row.results["scores"],
        "argmax": row.results.get("argmax_scores"),
        "choice": row.results.get("choice_scores"),
    }
    return {what: scores for what, scores in found.items() if scores}


TABLE_EXTRAS = (("argmax", "choice"), ("choice",), ())
"""The sets of extra columns of `table_of`, for terminals from wide to narrow."""


def table_of(rows: Sequence[TableRow], extras: Sequence[str] = ("argmax", "choice")) -> Table:
    """Return how all rows fit their targets and what they lost of language (perplexity), target by target.

    The column `highest` shows the value with the highest score. The columns `argmax` and `choice` show the most
    probable score of that value and its score in the choice format; a column is there if `extras` names it and any row
    has scores for it. `missing` is left out where nothing is missing.
    """
    found = {kind: [row.results.get(f"{kind}_scores") for row in rows] for kind in extras}
    extras = [kind for kind, scores in found.items() if any(scores)]
    missing = ["missing"] if any(row.results.get("missing") for row in rows) else []
    heads = ("", "read by", "NMSE", "Pearson", "perplexity", *missing, "highest", *extras)
    table = terminal_table(heads, left=("read by", "highest"))
    targets = list(dict.fromkeys(row.target for row in rows))
    for target in targets:
        if target is not None:
            table.add_row(Text(f"target {target.name}"), style="cyan")
        for row in (row for row in rows if row.target == target):
            results = row.results
            known = {value: score for value, score in results["scores"].items() if score is not None}
            top = max(known, key=lambda value: known[value]) if known and row.method != "constant" else None
            cells = [
                f"  {row.title}",
                {"none": ""}.get(row.reading, row.reading),
                number(results.get("nmse"), 3),
                number(results.get("pearson")),
                number(results.get("perplexity"), 1) if row.method != "constant" else "",
                *(str(results.get(key, "")) for key in missing),
                "" if top is None else f"{label(top)} {known[top]:.2f}",
            ]
            for kind in extras:
                scores = results.get(f"{kind}_scores")
                cells.append("" if top is None or not scores else number(scores[top]))
            table.add_row(*map(Text, cells), style="bold" if row.method == "adapter" else None)
    return table


Reading = Mapping[str, Any]
"""One reading of the questionnaire, as `jaxalign.values.portraits.read_questionnaire` returns it."""


def fitting_table(rows: Sequence[TableRow], width: int) -> Table:
    """Return the table with as many of its extra columns as fit into a terminal that is `width` characters wide."""
    return widest_that_fits((table_of(rows, extras) for extras in TABLE_EXTRAS), width)


def profile_table(target: Mapping[str, float] | None, before: Reading, after: Reading) -> Table:
    """Return a table of the ten values with the target score (if there is a target) and the scores before and after.

    The values with the highest target score are marked. A score that could not be read is shown as a dash.
    """
    columns: dict[str, Mapping[str, float | None]] = {} if target is None else {"target": target}
    columns |= {"before": before["scores"], "after": after["scores"]}
    table = terminal_table(("value", *columns), tight=False)
    highest = _highest(target)
    for value in VALUES:
        cells = [label(value), *(number(scores[value]) for scores in columns.values())]
        if value in highest:
            cells[0] += " ←"  # a mark that is also visible without colours
        table.add_row(*map(Text, cells), style="bold cyan" if value in highest else None)
    return table


def summary_lines(before: Reading, after: Reading, best_constant: float | None) -> list[str]:
    """Return the lines below the table: how both readings fit the target, their perplexities, and unread portraits.

    Without a target, `best_constant` is None and the lines about the fit are left out.
    """
    lines = []
    if best_constant is not None:
        error, shape = (f"before {number(before.get(key), 3)} · after {number(after.get(key), 3)}" for key in FITS[:2])
        lines += [
            f"NMSE, less is better {error} · best constant {number(best_constant, 3)}",
            f"NMSE after centring  {shape}",
            f"Profile correlation  before {_correlation(before)} · after {_correlation(after)}",
        ]
    first, last = (reading.get("perplexity") for reading in (before, after))
    times = f" ({number(last / first)} times as high)" if first and last else ""
    lines.append(f"Perplexity of plain text before {number(first, 1)} · after {number(last, 1)}{times}")
    for name, reading in (("before", before), ("after", after)):
        if reading.get("missing"):
            lines.append(f"Portraits that could not be read {name}: {reading['missing']}")
    return lines


HARDLY_LEARNT = 0.75
"""The error of a reading, in that of the best constant answer, above which the value was hardly learnt."""


def hardly_learnt(after: Reading, best_constant: float | None) -> bool:
    """Return whether a constant answer would be nearly as near to the target; False without a target."""
    error = after.get("nmse")
    return best_constant is not None and error is not None and error > HARDLY_LEARNT * best_constant


def _correlation(reading: Reading) -> str:
    return f"{number(reading.get('pearson'))} (rank {number(reading.get('spearman'))})"


def _highest(target: Mapping[str, float] | None) -> set[str]:
    """Return the values with the target's highest score, or none if all scores are equal."""
    if target is None or len(set(target.values())) == 1:
        return set()
    return {value for value in VALUES if target[value] == max(target.values())}
