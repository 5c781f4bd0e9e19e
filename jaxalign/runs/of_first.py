"""The directory of a run whose job has several processes: only the first process writes it.

Every other process works on a copy of the run's records in a temporary folder, so it finds what the first one finds,
and does what the first one does. What it writes there is thrown away.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from jaxalign.errors import UserError
from jaxalign.parallel.distributed import by_first, scratch_place
from jaxalign.runs.config_file import differing_keys
from jaxalign.runs.directory import SUMMARY, Run
from jaxalign.runs.reading import read_text
from jaxalign.runs.records import write_atomic


def open_run_of_first(run_identity: Mapping[str, Any], opened: Callable[[], Run], files: Sequence[str]) -> Run:
    """Return the run that `opened` makes or finds in the first process; in another one, a copy of its records.

    Args:
        run_identity: all that changes the run's numbers.
        opened: opens the run.
        files: what the run writes at the top of its directory.

    Raises:
        UserError: the run cannot be opened, or this process would make another one than the first.
    """
    run: Run | None = None

    def open_here() -> dict[str, Any]:
        nonlocal run
        run = opened()
        records = [run.path / name for name in (SUMMARY, *files) if (run.path / name).is_file()]
        hint = "remove it, and type the command again"
        return {"identity": run_identity, "records": {path.name: read_text(path, hint=hint) for path in records}}

    found = by_first(open_here)
    if run is not None:
        return run
    if differs := differing_keys(found["identity"], run_identity):
        raise UserError(f"it has other input than the first process: {differs}; give all hosts the same files")
    place: Path = scratch_place()
    for name, text in found["records"].items():
        write_atomic(place / name, text)
    return Run(place)
