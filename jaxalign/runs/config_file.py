"""The text of a run's config.yaml, and the keys in which two configurations differ."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

FORMAT = 2
"""The version of the layout of a run's directory, `run_format` in config.yaml. Version 0.1 of jaxalign wrote none."""


def flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return a nested mapping as a flat one with dotted keys."""
    found = {}
    for key, value in tree.items():
        found |= flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return found


def difference(path: Path, stored: Mapping[str, Any], given: Mapping[str, Any]) -> str:
    """Return the line that says in which keys the identity of a run differs from the given one: up to three of them."""
    before, now = flat(stored), flat(json.loads(json.dumps(given)))
    keys = [key for key in {**before, **now} if before.get(key) != now.get(key)]
    shown = ", ".join(
        f"{key.removeprefix('content.')} was {before.get(key)!r:.60} and is {now.get(key)!r:.60}" for key in keys[:3]
    )
    more = f" and {len(keys) - 3} more" if len(keys) > 3 else ""
    return f"{path} belongs to another configuration: {shown}{more}"


def config_text(resolved: Mapping[str, Any], identity: Mapping[str, Any], files: Sequence[str]) -> str:
    """Return the text of config.yaml: the whole configuration, the identity, and the files that the run writes."""

    def dump(tree: Any) -> str:
        return yaml.safe_dump(json.loads(json.dumps(tree)), sort_keys=False, allow_unicode=True, width=110)

    return (
        "# The whole configuration of this run, defaults included.\n"
        + dump(resolved)
        + "\n# What changes the numbers: a command with the same identity resumes this run.\n"
        + dump({"identity": identity})
        + "\n# What the run writes here, beside config.yaml and summary.json. run.overwrite=true deletes only these.\n"
        + dump({"run_files": list(files), "run_format": FORMAT})
    )
