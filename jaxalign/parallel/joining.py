"""How the processes of a job come together, hear signals together, and end together."""

import atexit
import contextlib
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
from jaxalign.parallel.rendezvous import Membership, join_seconds, meet, membership

POLL = 1.0
"""Seconds between two looks for a process that has failed."""

_FAILED = "jaxalign/failed/"


@contextlib.contextmanager
def all_processes() -> Iterator[None]:
    """Join the other processes of the job, if the environment names any, and work on it with them.

    Only the first one prints. A signal to stop that comes to one of them is heard by `stop_agreed` in all of them. An
    error in one of them ends all: the first prints it, in one line.

    Raises:
        UserError: not all of them are there.
    """
    if STATE.member is None and (mine := membership()) is not None:
        _join(mine)
    if STATE.member is None:
        yield
        return
    number = STATE.member.number
    STATE.over.clear()
    STATE.stop, STATE.agreed = False, None
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
        agreed = error is STATE.agreed or (STATE.stop and isinstance(error, KeyboardInterrupt))
        status = {UserError: 2, KeyboardInterrupt: 130}.get(type(error), 1)
        if not agreed:
            with contextlib.suppress(RuntimeError):  # the first process is gone; JAX ends this one
                coordination_client().key_value_set(f"{_FAILED}{number}", json.dumps([status, _line(error)]))
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
    jax.distributed.initialize(
        mine.address,
        mine.count,
        mine.number,
        local_device_ids=own,
        cluster_detection_method="deactivate",
        shutdown_timeout_seconds=3600,  # the first process may copy a run to its mirror at the end
    )
    STATE.member = mine


def own_gpu(number: int, machines: Sequence[str], environment: Mapping[str, str] = os.environ) -> list[int] | None:
    """Return which GPU a process takes, by its number among those of its machine; None for all, or as it was told.

    Processes on one machine take one each, as JAX itself does under Slurm and Open MPI; one alone takes all, which JAX
    does not do there. `machines` has the machine of each process (see `meet`).
    """
    beside = [other for other, where in enumerate(machines) if where == machines[number]]
    seen = environment.get("CUDA_VISIBLE_DEVICES", "")
    given = "JAX_LOCAL_DEVICE_IDS" in environment or (seen != "" and "," not in seen)
    return [beside.index(number)] if len(beside) > 1 and not given else None


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
        if received and STATE.stop and callable(before[signal.Signals(received[0])]):
            signal.raise_signal(received[0])


def _line(error: BaseException) -> str:
    member = STATE.member
    assert member is not None
    what = str(error) if isinstance(error, UserError) else f"it ended with {type(error).__name__}: {error}"
    return f"process {member.number} of {member.count} ({socket.gethostname()}): {' '.join(what.split())}"


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
                print(f"interrupted: {line}" if status == 130 else f"error: {line}", file=sys.stderr)
            _end(status, patience=2 * POLL if is_first() else 0.0)


def _end(status: int, patience: float) -> None:
    """End at once. The first process is the one through which the others learn of it, so it ends last."""
    sys.stdout.flush()
    sys.stderr.flush()
    forget_scratch()
    time.sleep(patience)
    os._exit(status)
