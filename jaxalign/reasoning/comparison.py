"""Finished CREST runs side by side."""

import glob
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import yaml
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from jaxalign.config.schema import shown
from jaxalign.errors import UserError
from jaxalign.reasoning.report import HEADS, rows
from jaxalign.runs.directory import flat


def find_finished(names: Sequence[str]) -> list[Path]:
    """Return the finished runs that names (folders, or patterns of them) lead to; UserError where there is none."""
    paths = []
    for name in names:
        found = sorted(glob.glob(name)) if glob.has_magic(name) else [name]
        finished = [Path(one) for one in found if (Path(one) / "summary.json").is_file()]
        finished = [one for one in finished if "models" in json.loads((one / "summary.json").read_text())]
        if not finished:
            raise UserError(f"compare={name} finds no finished run of jaxalign.crest")
        paths += finished
    return list(dict.fromkeys(paths))


def compare(console: Console, names: Sequence[str]) -> None:
    """Print one table over the finished runs that names lead to, each with its last model on validation and test (where
    nothing was trained, with all that were asked); in which settings they differ; and what makes them no comparison."""
    paths = find_finished(names)
    summaries = [json.loads((path / "summary.json").read_text(encoding="utf-8")) for path in paths]
    table = Table(box=SIMPLE_HEAD, header_style="bold", pad_edge=False)
    for place, head in enumerate(("run", *HEADS)):
        table.add_column(head, justify="left" if place < 2 else "right")
    for number, summary in enumerate(summaries, start=1):
        found = rows(summary)
        if any(name.partition("-")[0] in ("sft", "dpo") for name in summary["stages"]):
            found = [row for row in found if row[0] == summary["final"]]
        for row in found:
            table.add_row(str(number), *row)
    console.print(table)
    for number, (path, settings) in enumerate(zip(paths, _differences(paths), strict=True), start=1):
        console.print(f"{number}: {path}{settings and f': {settings}'}", highlight=False, soft_wrap=True)
    for what, found in (
        ("other questions: accuracies are not to be compared", [one.get("asked") for one in summaries]),
        (
            "other judges of the follow-ups: consistencies are not to be compared",
            [
                (one["model"]["identity"], one["judge_identity"]) if "judge_identity" in one else None
                for one in summaries
            ],
        ),
    ):
        groups = [
            [n for n, one in enumerate(found, start=1) if one == kind]
            for kind in dict.fromkeys(found)
            if kind is not None
        ]
        if len(groups) > 1:
            console.print(f"{' | '.join(' '.join(map(str, group)) for group in groups)}: {what}", highlight=False)


APART = ("identity", "run", "stage", "compare", "prefetch", "offline")
"""Of config.yaml, what is no setting of the method."""


def _differences(paths: Sequence[Path]) -> list[str]:
    """Return for each run its settings that are not the same in all of them."""
    trees = [yaml.safe_load((path / "config.yaml").read_text(encoding="utf-8")) for path in paths]
    found = [flat({key: value for key, value in tree.items() if key not in APART}) for tree in trees]
    keys = [key for key in dict.fromkeys(key for one in found for key in one)]
    differing = [key for key in keys if any(one.get(key) != found[0].get(key) for one in found)]
    return [" ".join(f"{key}={_brief(shown(one.get(key)))}" for key in differing) for one in found]


def _brief(text: str) -> str:
    """Return a setting as it is, or of a long one, such as worked examples, a hash that tells it from others."""
    return text if len(text) <= 120 else f"#{hashlib.sha256(text.encode()).hexdigest()[:8]}"
