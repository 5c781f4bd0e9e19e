"""The directory of a run whose job has several processes: only the first process writes it.

Every other process works on a copy of what the run has written, in a temporary folder. So it finds what the first one
finds, and does what the first one does. What it writes there is thrown away.
"""

import base64
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from jaxalign.errors import UserError
from jaxalign.parallel.distributed import by_first, is_first, scratch_place, several
from jaxalign.runs.config_file import differing_keys
from jaxalign.runs.directory import SUMMARY, Run
from jaxalign.runs.records import named_errors, write_atomic

KEPT_BY_FIRST = ("checkpoints", "models", "stages")
"""The folders that are not copied: the first process alone reads checkpoints, and the others hold runs of their own."""


def open_run_of_first(run_identity: Mapping[str, Any], opened: Callable[[], Run], files: Sequence[str]) -> Run:
    """Return the run that `opened` makes or finds in the first process; in another one, a copy of what it has written.

    Args:
        run_identity: all that changes the run's numbers.
        opened: opens the run.
        files: what the run writes at the top of its directory: files, and folders with all that is in them.

    Raises:
        UserError: the run cannot be opened or read, or this process would make another one than the first.
    """
    run: Run | None = None

    def open_here() -> dict[str, Any]:
        nonlocal run
        run = opened()
        written = (run.config.name, SUMMARY, *files)
        return {"identity": run_identity, "files": _read_files(run.path, written) if several() else {}}

    found = by_first(open_here)
    if run is not None:
        return run
    if differs := differing_keys(found["identity"], run_identity):
        raise UserError(f"it has other input than the first process: {differs}; give all hosts the same files")
    place = scratch_place()
    _write_files(place, found["files"])
    return Run(place)


def file_of_first(path: Path) -> Path:
    """Return `path` in the first process; in another one, the path of a copy, which need not exist either."""
    found = by_first(lambda: _read_files(path.parent, [path.name]) if several() else {})
    if is_first():
        return path
    place = scratch_place()
    _write_files(place, found)
    return place / path.name


def _read_files(folder: Path, names: Sequence[str]) -> dict[str, str]:
    """Return the content of those files and folders that exist, in base 64, by their paths in `folder`."""
    tops = [folder / name for name in names if name not in KEPT_BY_FIRST]
    found = [top for top in tops if top.is_file()] + [path for top in tops for path in sorted(top.rglob("*"))]
    with named_errors(folder, "read"):
        return {
            path.relative_to(folder).as_posix(): base64.b64encode(path.read_bytes()).decode("ascii")
            for path in found
            if path.is_file()
        }


def _write_files(folder: Path, files: Mapping[str, str]) -> None:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        write_atomic(folder / name, base64.b64decode(content))
