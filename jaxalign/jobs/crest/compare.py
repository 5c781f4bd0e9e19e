"""Finished CREST runs side by side: one table, and what makes them no comparison."""

import glob
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from jaxalign.errors import UserError
from jaxalign.reasoning.comparison import comparison_table, differing_settings, no_comparison
from jaxalign.runs.directory import stored_config
from jaxalign.runs.records import read_json


def compare(console: Console, names: Sequence[str]) -> None:
    """Print one table over the finished runs that names lead to, each with its last model on validation and test (where
    nothing was trained, with all that were asked); in which settings they differ; and what makes them no comparison."""
    paths = find_finished(names)
    summaries = [read_json(path / "summary.json") for path in paths]
    console.print(comparison_table(summaries))
    settings = differing_settings([stored_config(path) for path in paths])
    for number, (path, differing) in enumerate(zip(paths, settings, strict=True), start=1):
        console.print(f"{number}: {path}{differing and f': {differing}'}", highlight=False, soft_wrap=True)
    for line in no_comparison(summaries):
        console.print(line, highlight=False)


def find_finished(names: Sequence[str]) -> list[Path]:
    """Return the finished runs that names (folders, or patterns of them) lead to; UserError where there is none."""
    paths = []
    for name in names:
        found = sorted(glob.glob(name)) if glob.has_magic(name) else [name]
        finished = [Path(one) for one in found if (Path(one) / "summary.json").is_file()]
        finished = [one for one in finished if "models" in read_json(one / "summary.json")]
        if not finished:
            raise UserError(f"compare={name} finds no finished run of jaxalign.crest")
        paths += finished
    return list(dict.fromkeys(paths))
