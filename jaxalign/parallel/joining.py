"""How the processes of a job come together, hear signals together, and end together."""

import atexit
import contextlib
import ctypes
import json
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax

from jaxalign.errors import UserError
from jaxalign.parallel.distributed import STATE, coordination_client, forget_scratch, is_first
from jaxalign.parallel.interruption import STOP_SIGNALS, before_second_ends
from jaxalign.parallel.rendezvous import Membership, join_seconds, meet, membership

POLL = 1.0
"""Seconds between two looks for a process that has failed."""

_FAILED = "jaxalign/failed/"


@contextlib.contextmanager
def all_processes() -> Iterator[None]:
    """Join the other processes of the job, if the environment names any, and work on it with them.

    Only the first one prints. A signal to stop that comes to one of them ends all of them, or is heard by `stop_agreed`
    in all of them (see `stopping_together`). An error in one of them ends all: the first prints it, in one line.

    Raises:
        UserError: not all of them are there.
    """
    if STATE.member is None and (mine := membership()) is not None:
        _join(mine)
    if STATE.member is None:
        yield
        return
    STATE.over.clear()
    STATE.stop, STATE.agreed = False, None
    watch = threading.Thread(target=_watch, daemon=True)
    watch.start()
    try:
        with _signals_are_shared(), before_second_ends(_tell_of_second), contextlib.ExitStack() as stack:
            if not is_first():
                stack.enter_context(contextlib.redirect_stdout(stack.enter_context(open(os.devnull, "w"))))
            yield
    except SystemExit:
        raise
    except BaseException as error:
        agreed = error is STATE.agreed or (STATE.stop and isinstance(error, KeyboardInterrupt))
        status = {UserError: 2, KeyboardInterrupt: 130}.get(type(error), 1)
        if not agreed:
            with contextlib.suppress(RuntimeError):  # the first process is gone; JAX ends this one
                bug = f"it ended with {type(error).__name__}: {error}"
                _tell(status, {2: str(error), 130: "a signal to stop came"}.get(status, bug))
            # The others are in the middle of something, and would never come to JAX's own end.
            atexit.register(_end, status, patience=4 * POLL if is_first() else 0.0)
        if not is_first() and status != 1:
            raise SystemExit(status) from None
        raise
    finally:
        STATE.over.set()
        watch.join()
        forget_scratch()


def _join(mine: Membership) -> None:
    own = own_gpu(mine.number, meet(mine, join_seconds()))
    before = _handler_in_c(signal.SIGTERM)
    jax.distributed.initialize(
        mine.address,
        mine.count,
        mine.number,
        local_device_ids=own,
        cluster_detection_method="deactivate",
        shutdown_timeout_seconds=3600,  # the first process may copy a run to its mirror at the end
    )
    STATE.member = mine
    # JAX's own handler, which tells all processes. Python has no name for it, and a handler of ours takes its place.
    theirs = _handler_in_c(signal.SIGTERM)
    if theirs in (None, before):
        raise RuntimeError("this version of JAX has no handler of SIGTERM")
    STATE.tell_jax = ctypes.CFUNCTYPE(None, ctypes.c_int)(theirs)


def own_gpu(number: int, machines: Sequence[str], environment: Mapping[str, str] = os.environ) -> list[int] | None:
    """Return which GPU a process takes, by its number on its machine; None for all, or for what the user has set.

    Processes on one machine take one each, as JAX itself does under Slurm and Open MPI; one alone takes all, which JAX
    does not do there. `machines` has the machine of each process (see `meet`).
    """
    beside = [other for other, where in enumerate(machines) if where == machines[number]]
    seen = environment.get("CUDA_VISIBLE_DEVICES", "")
    given = "JAX_LOCAL_DEVICE_IDS" in environment or (seen != "" and "," not in seen)
    return [beside.index(number)] if len(beside) > 1 and not given else None


def _handler_in_c(number: int) -> int | None:
    """Return the address of the function that the operating system calls at a signal; None if it calls none."""
    read = ctypes.pythonapi.PyOS_getsig
    read.argtypes, read.restype = [ctypes.c_int], ctypes.c_void_p
    return read(number)


@contextlib.contextmanager
def _signals_are_shared() -> Iterator[None]:
    """Hand signals to stop on to JAX, which tells all processes, where they stop together (`stopping_together`).

    Elsewhere the handler from before is called, which raises KeyboardInterrupt in a command of ours. After a common
    stop, it is called, too: under submitit it requeues the job.
    """
    received: list[int] = []

    def note(number: int, frame: Any) -> None:
        if STATE.together:
            received.append(number)
            STATE.tell_jax(signal.SIGTERM)
        elif callable(handler := before[signal.Signals(number)]):
            handler(number, frame)

    found = {number: signal.getsignal(number) for number in STOP_SIGNALS}
    before = {number: handler for number, handler in found.items() if handler != signal.SIG_IGN}
    try:
        for number in before:
            signal.signal(number, note)
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        if received and STATE.stop and callable(handler := before[signal.Signals(received[0])]):
            handler(received[0], None)


def _tell(status: int, what: str) -> None:
    """Tell the other processes that this one ends, and why."""
    member = STATE.member
    assert member is not None
    line = f"process {member.number} of {member.count} ({socket.gethostname()}): {' '.join(what.split())}"
    coordination_client().key_value_set(f"{_FAILED}{member.number}", json.dumps([status, line]))


def _tell_of_second(number: int) -> None:
    forget_scratch()
    _tell(128 + number, f"a second signal ({signal.Signals(number).name}) came")


def _watch() -> None:
    """End this process some time after another one has failed, because it may wait for that one for ever."""
    while not STATE.over.wait(POLL):
        try:
            failed = coordination_client().key_value_dir_get(_FAILED)
        except RuntimeError:  # the first process is gone; JAX ends this one
            return
        if failed and not STATE.over.wait(2 * POLL):  # this one may have the same error, and say so itself
            status, line = json.loads(failed[0][1])
            if is_first():
                print(f"interrupted: {line}" if status >= 128 else f"error: {line}", file=sys.stderr)
            _end(status, patience=2 * POLL if is_first() else 0.0)


def _end(status: int, patience: float) -> None:
    """End at once. The first process is the one through which the others learn of it, so it ends last."""
    sys.stdout.flush()
    sys.stderr.flush()
    forget_scratch()
    time.sleep(patience)
    os._exit(status)
