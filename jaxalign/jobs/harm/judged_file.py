"""The judged responses of a judge stage, which later stages and reports read without any model."""

from collections.abc import Mapping, Sequence
from typing import Any

from jaxalign.runs.directory import Run
from jaxalign.runs.records import read_records
from jaxalign.safety.judged import JudgedRow, JudgedTable, judged_table
from jaxalign.safety.judgements import Judgement

JUDGED_FILE = "judged.jsonl"


def read_judged(run: Run) -> list[tuple[str, str, JudgedRow]]:
    """Return the rows of a finished judge stage, each with the judge's name and the key of its generation."""
    rows = []
    for line in read_records(run.path / JUDGED_FILE, id=str, category=str, group=str, sample=int, key=str, judge=str):
        judgement = None
        if line["score"] is not None or line["label"] is not None or line["missing"] is not None:
            judgement = Judgement(line["score"], line["label"], "", line["missing"])
        row = JudgedRow(line["id"], line["category"], line["group"], line["sample"], judgement, line["state"])
        rows.append((line["judge"], line["key"], row))
    return rows


def harm_labels(run: Run, scales: Mapping[str, Sequence[float | None]]) -> dict[str, str | None]:
    """Return what judges say of each response by the key of its generation: "harmful" or "fine"; None if missing.

    `scales` has the judges' scales by name, as a summary has them; what another judge says is missing.
    """
    limits = {name: scale[2] for name, scale in scales.items()}
    found: dict[str, str | None] = {}
    for one in read_records(run.path / JUDGED_FILE, key=str, judge=str):
        limit, score = limits.get(one["judge"]), one["score"]
        found[one["key"]] = None if score is None or limit is None else "harmful" if score >= limit else "fine"
    return found


def judged_tables(run: Run) -> dict[str, JudgedTable]:
    """Return the judged responses of a finished judge stage, by the name of the judge."""
    rows: dict[str, list[Any]] = {}
    for judge, _, row in read_judged(run):
        rows.setdefault(judge, []).append(row)
    return {judge: judged_table(mine) for judge, mine in rows.items()}
