"""A run's config.yaml, and the keys in which two configurations differ."""

import glob
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from jaxalign.errors import UserError
from jaxalign.runs.records import digest

FORMAT = 2
"""The version of the layout of a run's directory, `run_format` in config.yaml. Version 0.1 of jaxalign wrote none."""

_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # many runs may be looked at, and it is ten times as fast


def flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return a nested mapping as a flat one with dotted keys."""
    found = {}
    for key, value in tree.items():
        found |= flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return found


def difference(path: Path, stored: Mapping[str, Any], given: Mapping[str, Any]) -> str:
    """Return the line that says in which keys the identity of a run differs from the given one: up to three of them."""
    return f"{path} belongs to another configuration: {differing_keys(stored, given)}"


def differing_keys(stored: Mapping[str, Any], given: Mapping[str, Any]) -> str:
    """Return in words which keys of two identities differ, up to three of them; "" if none does."""
    before, now = flat(stored), flat(json.loads(json.dumps(given)))
    keys = [key for key in {**before, **now} if before.get(key) != now.get(key)]
    shown = ", ".join(
        f"{key.removeprefix('content.')} was {before.get(key)!r:.60} and is {now.get(key)!r:.60}" for key in keys[:3]
    )
    more = f" and {len(keys) - 3} more" if len(keys) > 3 else ""
    return f"{shown}{more}"


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


def read_config_file(path: Path) -> dict[str, Any] | None:
    """Return the content of a run's config.yaml; None if it cannot be read, or no run wrote it."""
    try:
        return parsed_config(path.read_text(encoding="utf-8")) if path.is_file() else None
    except (OSError, ValueError):
        return None


def parsed_config(text: str) -> dict[str, Any] | None:
    """Return the content of a run's config.yaml from its text; None if no run wrote it."""
    try:
        # No run writes aliases, and a few of them can stand for more values than fit into the memory.
        if "*" in text and any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(text, Loader=_LOADER)):
            return None
        stored = yaml.load(text, Loader=_LOADER)
    except (ValueError, RecursionError, yaml.YAMLError):
        return None
    if not (isinstance(stored, dict) and isinstance(stored.get("identity"), dict) and _is_json(stored)):
        return None  # dates, sets and bytes are YAML, too, but no run writes them
    return stored


def _is_json(value: Any) -> bool:
    if isinstance(value, dict):
        return all(isinstance(key, str) and _is_json(one) for key, one in value.items())
    return all(map(_is_json, value)) if isinstance(value, list) else isinstance(value, str | int | float | None)


def safe_name(name: str) -> str:
    """Return the readable part of a run directory's name as one that a folder can have."""
    return name.replace(os.sep, "-")


def older_runs(root: str | Path, name: str) -> list[Path]:
    """Return the directories under `root` of runs with this name that an older version of jaxalign made.

    This version reads such runs as input, but does not resume them and writes nothing there.
    """
    found = sorted(Path(root).glob(f"{glob.escape(safe_name(name))}-{'[0-9a-f]' * 8}"))
    return [path for path in found if is_older(path)]


def is_older(path: Path) -> bool:
    """Return whether an older version of jaxalign made the run in a directory."""
    stored = read_config_file(path / "config.yaml")
    form = None if stored is None else stored.get("run_format", 1)  # 0.1 wrote none
    return isinstance(form, int) and form < FORMAT


def stored_config(path: str | Path) -> dict[str, Any]:
    """Return the content of a run's config.yaml, its `identity` included, whatever version of jaxalign wrote it.

    Raises:
        UserError: the directory holds no run.
    """
    stored = read_config_file(Path(path) / "config.yaml")
    if stored is None:
        raise UserError(f"{path} is not a run's directory: its config.yaml is missing or damaged, or no run wrote it")
    return stored


def owner(path: Path) -> str | None:
    """Return the hash of a run's identity, by which a file names the run that wrote it; None without a config.yaml."""
    stored = read_config_file(path / "config.yaml")
    return None if stored is None else digest(stored["identity"])
