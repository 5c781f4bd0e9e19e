"""Finished CREST runs side by side: one table, and the reasons why some of its numbers must not be compared."""

import glob
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from jaxalign.errors import UserError
from jaxalign.reasoning.comparison import comparison_table, differing_settings, no_comparison
from jaxalign.runs.directory import stored_config
from jaxalign.runs.records import read_json


def compare(console: Console, names: Sequence[str]) -> None:
    """Print one table over finished runs, the settings in which they differ, and what makes them incomparable.

    The table has the final model of each run on validation and test, or all models of a run that trained nothing.

    Args:
        console: prints the table and the lines.
        names: folders of runs, or patterns such as outputs/crest-*.

    Raises:
        UserError: a name leads to no finished run.
    """
    paths = find_finished(names)
    summaries = [read_json(path / "summary.json") for path in paths]
    console.print(comparison_table(summaries))
    settings = differing_settings([stored_config(path) for path in paths])
    for number, (path, differing) in enumerate(zip(paths, settings, strict=True), start=1):
        console.print(f"{number}: {path}{differing and f': {differing}'}", highlight=False, soft_wrap=True)
    for line in no_comparison(summaries):
        console.print(line, highlight=False)


def find_finished(names: Sequence[str]) -> list[Path]:
    """Return the finished runs that `names` (folders or patterns) lead to, each once; UserError if a name has none."""
    paths = []
    for name in names:
        found = [name] if Path(name).exists() or not glob.has_magic(name) else sorted(glob.glob(name))
        finished = [Path(one) for one in found if (Path(one) / "summary.json").is_file()]
        finished = [one for one in finished if "models" in read_json(one / "summary.json")]
        if not finished:
            raise UserError(f"compare={name} finds no finished run of jaxalign.crest")
        paths += finished
    return list(dict.fromkeys(paths))
