"""Commands in processes of their own, as `python -m` starts them, but with their imports done before.

A command imports for longer than it works on the model `tiny`. So the fork server of the standard library imports once
for all of a worker's commands, and each command begins as a copy of it: without a backend of JAX, and with one thread.
What the worker has read and composed of configurations, a command does not compose anew.
"""

import atexit
import multiprocessing
import os
import runpy
import shutil
import signal
import sys
import tempfile
import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from multiprocessing import forkserver
from pathlib import Path
from typing import Any
from unittest.mock import patch

import hydra_once
import jax

FORKS: Any = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["child_server"])


class Child:
    """A command that runs in a process of its own, used like `subprocess.Popen`; what it prints is kept in two files.

    The `module` may also be the path of a script. Without an `environment` it has this process's.
    """

    def __init__(self, module: str, arguments: Sequence[object] = (), environment: Mapping[str, str] | None = None):
        with patch.dict(os.environ, PYTHONPATH=os.pathsep.join(sys.path)):  # the server finds what this process finds
            forkserver.ensure_running()
        folder = Path(tempfile.mkdtemp(prefix="jaxalign-child-"))
        weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
        self._printed = [folder / name for name in ("out", "err")]
        asked = (module, list(map(str, arguments)), dict(os.environ if environment is None else environment))
        kept = dict(hydra_once.KEPT)
        for path in self._printed:
            path.touch()
        self._process = FORKS.Process(target=_run, args=(*asked, os.getcwd(), self._printed, kept), daemon=True)
        self._process.start()
        threads = Path(f"/proc/{forkserver._forkserver._forkserver_pid}/task")  # of Linux
        assert not threads.exists() or len(list(threads.iterdir())) == 1, "a copy of several threads may hang"

    def poll(self) -> int | None:
        """Return its exit status, or the signal that ended it as a negative number; None while it runs."""
        return self._process.exitcode

    def send_signal(self, number: int) -> None:
        """Send it a signal, unless it has ended."""
        if self.poll() is None:
            os.kill(self._process.pid, number)

    def kill(self) -> None:
        """Kill it, unless it has ended."""
        self.send_signal(signal.SIGKILL)

    def wait(self, timeout: float | None = None) -> int:
        """Wait until it ends, and return what `poll` does. Raise TimeoutError if it runs for so many seconds more."""
        self._process.join(timeout)
        if (status := self.poll()) is None:
            raise TimeoutError
        return status

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """Wait until it ends, and return what it has printed, and its errors."""
        self.wait(timeout)
        return self.so_far()

    def so_far(self) -> tuple[str, str]:
        """Return what it has printed by now, and its errors."""
        out, err = (path.read_text() for path in self._printed)
        return out, err

    def printed(self, timeout: float = 900.0) -> str:
        """Wait until it ends, and return what it has printed. Fail if its exit status is not 0."""
        out, err = self.communicate(timeout)
        assert self.poll() == 0, err[-4000:]
        return out

    def kill_when(self, condition: Callable[[], object]) -> None:
        """Kill it as soon as a condition holds. Fail if it ends before."""
        while not condition():
            assert self.poll() is None, f"it ended before it was killed: {self.communicate()}"
            time.sleep(0.002)
        self.kill()
        self.wait()


def _run(
    module: str,
    arguments: list[str],
    environment: dict[str, str],
    folder: str,
    printed: list[Path],
    kept: dict[str, bytes],
) -> None:
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    for number, path in enumerate(printed, 1):
        os.dup2(os.open(path, os.O_WRONLY | os.O_APPEND), number)
    hydra_once.KEPT.update(kept)
    atexit.register(jax.distributed.shutdown)  # from Python 3.13 on, a fork forgets what JAX does at the end
    sys.argv = ["", *arguments]
    try:
        if module.endswith(".py"):
            runpy.run_path(module, run_name="__main__")
        else:
            runpy.run_module(module, run_name="__main__", alter_sys=True)
    finally:
        atexit._run_exitfuncs()  # a process that was forked leaves them out
