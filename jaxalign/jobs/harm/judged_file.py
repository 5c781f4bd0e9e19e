"""The judged responses of a judge stage, which later stages and reports read without any model."""

import json
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from jaxalign.runs.directory import Run
from jaxalign.runs.expected import Expected
from jaxalign.runs.records import named_errors, parse_record, read_records
from jaxalign.safety.judged import JudgedRow, JudgedTable, columns_as_table
from jaxalign.safety.judgements import Judgement
from jaxalign.safety.states import STATES

JUDGED_FILE = "judged.jsonl"

FIRST_KEYS = ("id", "category")
"""The keys that each line begins with, so that the lines of a prompt can be found without parsing the others."""

_FIELDS: dict[str, Expected] = {
    **dict.fromkeys(("id", "category", "group", "key", "judge"), str),
    "state": set(STATES),
    "sample": int,
    "score": int | float | None,
    **dict.fromkeys(("label", "missing"), str | None),
}


def again(folder: Path, run: Path | None = None) -> str:
    """Return what mends the damaged files of a stage; `run` is the directory of the whole run, if it is known."""
    whose = "the run's own command" if run is None else f"the command of {run}"
    return f"remove {folder}, and type {whose} again, which does that stage again"


def judged_records(folder: Path) -> list[dict[str, Any]]:
    """Return the records of a finished judge stage, none if it has no such file; UserError if one is damaged."""
    return read_records(folder / JUDGED_FILE, again(folder), **_FIELDS)


def judged_records_of(folder: Path, ids: Collection[str]) -> list[dict[str, Any]]:
    """Return the records of a finished judge stage on the prompts with these ids; UserError if one is damaged.

    Lines that begin with `FIRST_KEYS` and another id are not parsed.
    """
    start, behind = (f'{begin}"{key}": '.encode() for begin, key in zip(("{", ", "), FIRST_KEYS, strict=True))
    wanted = {json.dumps(one, ensure_ascii=False).encode() for one in ids}
    path, found = folder / JUDGED_FILE, []
    if not path.is_file():
        return found
    with named_errors(path, "read"), path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            name = line[len(start) : line.find(behind)]
            if line.startswith(start) and name not in wanted and name.count(b'"') == 2:
                continue
            if line.endswith(b"\n"):
                found.append(parse_record(line, path, number, again(folder), _FIELDS))
    return [one for one in found if one["id"] in ids]


def stage_place(run: Path, told: str) -> Path | None:
    """Return the directory of a stage that a run's summary names, also where the runs were moved; None if not there.

    The name is relative to the run. Older summaries have it as it was, which may be relative to another folder.
    """
    named = Path(told)
    places = [run / named, named, run.parent / "stages" / named.name, run / "models" / Path(*named.parts[-3:])]
    return next((one for one in places if (one / "summary.json").is_file()), None)


def with_stage_places(summary: Mapping[str, Any], run: Path) -> dict[str, Any]:
    """Return the summary of a run with the directories of its stages as they are found from here."""
    models = []
    for one in summary["models"]:
        places = {stage: str(stage_place(run, one[stage]) or one[stage]) for stage in ("generate", "judge")}
        models.append({**one, **places})
    return {**summary, "models": models}


def read_judged(run: Run) -> list[tuple[str, str, JudgedRow]]:
    """Return the rows of a finished judge stage, each with the judge's name and the key of its generation."""
    rows = []
    for line in judged_records(run.path):
        judgement = None
        if line["score"] is not None or line["label"] is not None or line["missing"] is not None:
            judgement = Judgement(line["score"], line["label"], "", line["missing"])
        row = JudgedRow(line["id"], line["category"], line["group"], line["sample"], judgement, line["state"])
        rows.append((line["judge"], line["key"], row))
    return rows


def harm_labels(run: Run, judges: Sequence[Mapping[str, Any]]) -> dict[str, str | None]:
    """Return what judges say of each response by the key of its generation: "harmful" or "fine"; None if missing.

    `judges` are their entries in a summary; what another judge says is missing.
    """
    limits = {one["judge"]: one["scale"][2] for one in judges}
    found: dict[str, str | None] = {}
    for one in judged_records(run.path):
        limit, score = limits.get(one["judge"]), one["score"]
        found[one["key"]] = None if score is None or limit is None else "harmful" if score >= limit else "fine"
    return found


def shared_labels(
    first: Mapping[str, str | None], second: Mapping[str, str | None]
) -> tuple[list[str | None], list[str | None]]:
    """Return what two judges say of the responses that both have (see `harm_labels`), in the order of the first."""
    shared = [key for key in first if key in second]
    return [first[key] for key in shared], [second[key] for key in shared]


def judged_tables(run: Run) -> dict[str, JudgedTable]:
    """Return the judged responses of a finished judge stage, by the name of the judge."""
    by_judge: dict[str, list[Mapping[str, Any]]] = {}
    for one in judged_records(run.path):
        by_judge.setdefault(one["judge"], []).append(one)
    return {judge: _table(mine) for judge, mine in by_judge.items()}


def _table(records: Sequence[Mapping[str, Any]]) -> JudgedTable:
    ids, categories, groups, samples, states = (
        [one[name] for one in records] for name in ("id", "category", "group", "sample", "state")
    )
    scores, labels = ([one[name] if one["missing"] is None else None for one in records] for name in ("score", "label"))
    return columns_as_table(ids, categories, groups, samples, scores, labels, states)
