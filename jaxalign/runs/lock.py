"""The lock of a run's directory against a second process on this machine."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from jaxalign.errors import UserError
from jaxalign.runs.records import named_errors

LOCK = ".lock"


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Lock a directory.

    Raises:
        UserError: another process holds the lock; or, at the end, the directory was deleted or moved meanwhile.
    """
    place = folder / LOCK
    with named_errors(folder, "lock"):
        file = place.open("a")
    with file:
        with named_errors(folder, "lock"):
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise UserError(f"{folder} is in use by another process: wait for it, or choose a run.dir") from error
        yield
        if not place.exists() or not os.path.samestat(place.stat(), os.fstat(file.fileno())):
            raise UserError(
                f"{folder} was deleted or moved while this command worked in it, so that what is there now is not "
                "whole: remove it, and type the command again"
            )
