"""Finished CREST runs side by side: one table, and the reasons why some of its numbers must not be compared."""

import glob
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from jaxalign.errors import UserError, shown
from jaxalign.reasoning.comparison import comparison_table, no_comparison
from jaxalign.reasoning.summary import CREST_SUMMARY
from jaxalign.runs.config_file import flat, stored_config
from jaxalign.runs.directory import Run
from jaxalign.runs.progress import say
from jaxalign.runs.records import digest

APART = ("identity", "run_files", "run_format", "run", "stage", "judge", "compare", "prefetch", "offline")
"""The keys of config.yaml that are not settings of the method."""


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
    summaries = [Run(path).results(**CREST_SUMMARY) for path in paths]
    console.print(comparison_table(summaries))
    settings = differing_settings([stored_config(path) for path in paths])
    for number, (path, differing) in enumerate(zip(paths, settings, strict=True), start=1):
        say(console, f"{number}: {path}{differing and f': {differing}'}")
    for line in no_comparison(summaries):
        console.print(line, highlight=False)


def find_finished(names: Sequence[str]) -> list[Path]:
    """Return the finished runs that `names` (folders or patterns) lead to, each once; UserError if a name has none."""
    paths = []
    for name in names:
        found = [name] if Path(name).exists() or not glob.has_magic(name) else sorted(glob.glob(name))
        finished = [run.path for one in found if (run := Run(Path(one))).finished and is_crest(run.path)]
        if not finished:
            raise UserError(f"compare={name} finds no finished run of jaxalign.crest")
        paths += finished
    return list(dict.fromkeys(paths))


def is_crest(path: Path) -> bool:
    """Return whether a folder is a whole run of jaxalign.crest: no stage of one, and no run of another command."""
    try:
        config = stored_config(path)
    except UserError:
        return False
    return "crest" in config and "stage" not in config["identity"]


def differing_settings(configs: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return, for each configuration, a line with those of its settings that are not the same in all configurations."""
    found = [flat({key: value for key, value in tree.items() if key not in APART}) for tree in configs]
    keys = [key for key in dict.fromkeys(key for one in found for key in one)]
    differing = [key for key in keys if any(one.get(key) != found[0].get(key) for one in found)]
    return [" ".join(f"{key}={_brief(shown(one.get(key)))}" for key in differing) for one in found]


def _brief(text: str) -> str:
    """Return a setting's text, or a hash of it if it is long, as worked examples are."""
    return text if len(text) <= 120 else f"#{digest(text, 8)}"
