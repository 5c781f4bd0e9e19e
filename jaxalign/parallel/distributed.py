"""Several processes that work on one job, each with its own devices, and all through the same programs (SPMD).

The first process alone writes the run's directory, prints, and decides; what it decides is told to the others.
"""

import atexit
import contextlib
import json
import os
import shutil
import signal
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils

from jaxalign.errors import UserError
from jaxalign.parallel.rendezvous import Membership, expected_processes, join_seconds, meet, membership

T = TypeVar("T")

POLL = 1.0
"""Seconds between two looks for a process that has failed."""

_FAILED, _FOREVER = "jaxalign/failed/", 7 * 24 * 3600 * 1000


@dataclass
class _State:
    """What this process knows of the others."""

    member: Membership | None = None
    told: int = 0
    """How often something was told."""
    met: int = 0
    """How often all have waited for each other."""
    asked: int = 0
    """How often it was asked whether to stop."""
    stop: bool = False
    """Whether all processes stop now."""
    agreed: BaseException | None = None
    """The error with which all processes end."""
    folder: Path | None = None
    """Where this process writes if it is not the first one."""
    over: threading.Event = field(default_factory=threading.Event)


_STATE = _State()


def several() -> bool:
    """Return whether this process has joined others."""
    return _STATE.member is not None


def is_first() -> bool:
    """Return whether this process is the one that writes and decides; a process that is alone is."""
    return _STATE.member is None or _STATE.member.number == 0


def process_count() -> int:
    """Return the number of processes of this job."""
    return 1 if _STATE.member is None else _STATE.member.count


def check_joined() -> None:
    """Check that this process has joined the others that the environment names, or is alone.

    Several that have not joined would all do the same work and write the same files.

    Raises:
        UserError: it is one of several, or a variable is not a number.
    """
    if (count := expected_processes()) > 1 and not several():
        raise UserError(
            f"the environment names {count} processes, and only jaxalign.train works in several: start this command "
            "once, on one host, and it uses all devices of it"
        )


@contextlib.contextmanager
def all_processes() -> Iterator[None]:
    """Join the other processes of the job, if the environment names any, and work on it with them.

    Only the first one prints. A signal to stop that comes to one of them is heard by `stop_agreed` in all of them. An
    error in one of them ends all: the first prints it, in one line.

    Raises:
        UserError: not all of them are there.
    """
    if _STATE.member is None and (mine := membership()) is not None:
        _join(mine)
    if _STATE.member is None:
        yield
        return
    _STATE.over.clear()
    _STATE.stop, _STATE.agreed = False, None
    watch = threading.Thread(target=_watch, daemon=True)
    watch.start()
    try:
        with _signals_are_shared(), contextlib.ExitStack() as stack:
            if not is_first():
                stack.enter_context(contextlib.redirect_stdout(stack.enter_context(open(os.devnull, "w"))))
            yield
    except SystemExit:
        raise
    except BaseException as error:
        agreed = error is _STATE.agreed or (_STATE.stop and isinstance(error, KeyboardInterrupt))
        status = {UserError: 2, KeyboardInterrupt: 130}.get(type(error), 1)
        if not agreed:
            with contextlib.suppress(RuntimeError):  # the first process is gone; JAX ends this one
                _client().key_value_set(f"{_FAILED}{_STATE.member.number}", json.dumps([status, _line(error)]))
            # The others are in the middle of something, and would never come to JAX's own end.
            atexit.register(_end, status, patience=4 * POLL if is_first() else 0.0)
        if not is_first() and status != 1:
            raise SystemExit(status) from None
        raise
    finally:
        _STATE.over.set()
        watch.join()
        _forget_folder()


def told(decide: Callable[[], T]) -> T:
    """Return in every process what `decide` returns in the first one, which alone calls it. It must be JSON.

    All processes wait for it. If it raises UserError, all of them end.
    """
    if _STATE.member is None:
        return decide()
    _STATE.told += 1
    key, client = f"jaxalign/told/{_STATE.told}", _client()
    if not is_first():
        found = json.loads(client.blocking_key_value_get(key, _FOREVER))
        if not found:
            raise SystemExit(2)
        return found[0]
    try:
        value = decide()
    except UserError as error:
        _STATE.agreed = error
        client.key_value_set(key, "[]")
        raise
    client.key_value_set(key, json.dumps([value]))
    return value


def wait_for_all() -> None:
    """Wait until all processes are here."""
    if _STATE.member is not None:
        _STATE.met += 1
        _client().wait_at_barrier(f"jaxalign/met/{_STATE.met}", _FOREVER)


@contextlib.contextmanager
def of_first(context: contextlib.AbstractContextManager[Any]) -> Iterator[None]:
    """Enter and leave a context in the first process alone; if that raises UserError, all of them end."""
    with contextlib.ExitStack() as stack:

        def enter() -> None:
            stack.enter_context(context)

        told(enter)
        yield
        told(stack.close)


def arrays_of_first(tree: Any, like: Any) -> Any:
    """Return in every process the arrays of NumPy that the first one has, bit for bit.

    `like` is a pytree of the same structure with shapes and types, and `tree` is only used in the first process.
    """
    if _STATE.member is None:
        return tree

    # As whole numbers, because a sum with the zeros of the other processes makes 0 of -0.
    def bits(leaf: Any) -> np.ndarray:
        return np.ascontiguousarray(leaf).reshape(leaf.shape).view(f"u{leaf.dtype.itemsize}")

    wait_for_all()
    mine = tree if is_first() else jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), like)
    found = multihost_utils.broadcast_one_to_all(jax.tree.map(bits, mine))
    return jax.tree.map(lambda leaf, one: np.asarray(leaf).view(one.dtype), found, like)


def stop_agreed() -> bool:
    """Return whether all processes stop here, because a signal to stop has come to one of them.

    All get the same answer, so all must ask equally often. A process that is alone always gets False.
    """
    if _STATE.member is not None and not _STATE.stop:
        _STATE.asked += 1
        _STATE.stop = multihost_utils.reached_preemption_sync_point(_STATE.asked)
    return _STATE.stop


def scratch_place() -> Path:
    """Return a new folder for what a process other than the first one writes; it is deleted at the end."""
    if _STATE.folder is None:
        _STATE.folder = Path(tempfile.mkdtemp(prefix="jaxalign-"))
    return Path(tempfile.mkdtemp(dir=_STATE.folder))


def _client() -> Any:
    """Return JAX's connection to the first process, which it has no public name for."""
    from jax._src.distributed import global_state

    return global_state.client


def _join(mine: Membership) -> None:
    hosts = meet(mine, join_seconds())
    # Processes on one host take a GPU each, as JAX itself does under Slurm and Open MPI; one alone takes all, which JAX
    # does not do there.
    beside = [number for number, host in enumerate(hosts) if host == hosts[mine.number]]
    given = "JAX_LOCAL_DEVICE_IDS" in os.environ or os.environ.get("CUDA_VISIBLE_DEVICES", "").isdecimal()
    own = [beside.index(mine.number)] if len(beside) > 1 and not given else None
    jax.distributed.initialize(
        mine.address,
        mine.count,
        mine.number,
        local_device_ids=own,
        cluster_detection_method="deactivate",
        shutdown_timeout_seconds=3600,  # the first process may copy a run to its mirror at the end
    )
    _STATE.member = mine
    if jax.process_count() != mine.count:
        raise UserError(
            f"the environment names {mine.count} processes, and their devices are those of {jax.process_count()}: "
            "start one on each host, with the same variables"
        )


@contextlib.contextmanager
def _signals_are_shared() -> Iterator[None]:
    """Hand SIGINT, SIGUSR1 and SIGUSR2 on to JAX, which has a handler for SIGTERM alone, and tells all processes.

    JAX set it when the processes joined, and a handler of ours would take its place. At the end, the handler from
    before is called: under submitit it requeues the job.
    """
    received: list[int] = []

    def note(number: int, _frame: Any) -> None:
        if received:
            raise KeyboardInterrupt
        received.append(number)
        signal.raise_signal(signal.SIGTERM)

    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        if received and _STATE.stop and callable(before[signal.Signals(received[0])]):
            signal.raise_signal(received[0])


def _line(error: BaseException) -> str:
    member = _STATE.member
    assert member is not None
    what = str(error) if isinstance(error, UserError) else f"it ended with {type(error).__name__}: {error}"
    return f"process {member.number} of {member.count} ({socket.gethostname()}): {' '.join(what.split())}"


def _watch() -> None:
    """End this process some time after another one has failed, because it may wait for that one for ever."""
    while not _STATE.over.wait(POLL):
        try:
            failed = _client().key_value_dir_get(_FAILED)
        except RuntimeError:  # the first process is gone; JAX ends this one
            return
        if failed and not _STATE.over.wait(2 * POLL):  # this one may have the same error, and say so itself
            status, line = json.loads(failed[0][1])
            if is_first():
                print(f"interrupted: {line}" if status == 130 else f"error: {line}", file=sys.stderr)
            _end(status, patience=2 * POLL if is_first() else 0.0)


def _end(status: int, patience: float) -> None:
    """End at once. The first process is the one through which the others learn of it, so it ends last."""
    sys.stdout.flush()
    sys.stderr.flush()
    _forget_folder()
    time.sleep(patience)
    os._exit(status)


def _forget_folder() -> None:
    if _STATE.folder is not None:
        shutil.rmtree(_STATE.folder, ignore_errors=True)
        _STATE.folder = None
