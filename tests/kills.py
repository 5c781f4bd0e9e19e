"""What a kill leaves on the disk, without a process to kill: the folder is copied while a command writes to it.

A kill between two writes leaves what the first one left, and every write of records ends in `os.fsync`. So a copy that
is made there, half-written files included, is what a kill leaves. Tests with `child_process` kill in earnest.
"""

import contextlib
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from unittest.mock import patch


class _Killed(BaseException):
    """The command has been stopped, after its folder was copied."""


def left_by_kill(
    folder: Path, target: Path, condition: Callable[[], object], command: Callable[[], None], *, goes_on: bool = False
) -> None:
    """Run a command that writes to `folder`, and copy to `target` what a kill would leave once a condition holds.

    The command then stops, unless it `goes_on`. Fail if it ends before.
    """

    def written(_descriptor: int) -> None:
        if not target.exists() and condition():
            shutil.copytree(folder, target)
            if not goes_on:
                raise _Killed

    with patch.object(os, "fsync", written), contextlib.suppress(_Killed):
        command()
    assert target.exists(), "it ended before it was killed"
