"""Several processes that work on one job, each with its own devices, and all through the same programs (SPMD).

The first process alone writes the run's directory, prints, and decides; what it decides is told to the others. How they
come together and end is in joining.py.
"""

import contextlib
import json
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils

from jaxalign.errors import UserError
from jaxalign.parallel.processor import available_devices
from jaxalign.parallel.rendezvous import Membership, expected_processes

T = TypeVar("T")

_FOREVER = 7 * 24 * 3600 * 1000
"""The longest wait, in milliseconds. A process that fails ends all that wait for it."""


@dataclass
class State:
    """What this process knows of the others."""

    member: Membership | None = None
    told: int = 0
    """How often something was told."""
    met: int = 0
    """How often all have waited for each other."""
    asked: int = 0
    """How often it was asked whether to stop."""
    together: bool = False
    """Whether they stop together at a signal, where they have agreed to."""
    stop: bool = False
    """Whether all processes stop now."""
    tell_jax: Callable[[int], None] = lambda number: None
    """Tells JAX of a signal to stop, and JAX tells all processes."""
    agreed: BaseException | None = None
    """The error with which all processes end."""
    folder: Path | None = None
    """Where this process writes if it is not the first one."""
    over: threading.Event = field(default_factory=threading.Event)


STATE = State()


def several() -> bool:
    """Return whether this process has joined others."""
    return STATE.member is not None


def is_first() -> bool:
    """Return whether this process is the one that writes and decides; a process that is alone is."""
    return STATE.member is None or STATE.member.number == 0


def process_count() -> int:
    """Return the number of processes of this job."""
    return 1 if STATE.member is None else STATE.member.count


def check_joined() -> None:
    """Check that this process has joined the others that the environment names, or is alone, and that it has devices.

    Raises:
        UserError: see `check_alone` and `available_devices`.
    """
    if not several():
        check_alone()
    available_devices()


def check_alone() -> None:
    """Check that the environment names no other process, because one does this work.

    Several that do not work together would all do the same work and write the same files.

    Raises:
        UserError: it is one of several, or a variable is not a number.
    """
    if (count := expected_processes()) > 1:
        raise UserError(
            f"the environment names {count} processes, and one does this work: start the command once, on one host, "
            "and it uses all devices of it (several work together in train, crest, generate and evaluate, unless there "
            "is a chat, or a server that answers or judges)"
        )


def by_first(decide: Callable[[], T]) -> T:
    """Return in every process what `decide` returns in the first one, which alone calls it. It must be JSON.

    All processes wait for it. If it raises UserError, all of them end.
    """
    if STATE.member is None:
        return decide()
    STATE.told += 1
    key, client = f"jaxalign/told/{STATE.told}", coordination_client()
    if not is_first():
        found = json.loads(client.blocking_key_value_get(key, _FOREVER))
        if not found:
            raise SystemExit(2)
        return found[0]
    try:
        value = decide()
    except UserError as error:
        STATE.agreed = error
        client.key_value_set(key, "[]")
        raise
    client.key_value_set(key, json.dumps([value]))
    return value


def wait_for_all() -> None:
    """Wait until all processes are here."""
    if STATE.member is not None:
        STATE.met += 1
        coordination_client().wait_at_barrier(f"jaxalign/met/{STATE.met}", _FOREVER)


@contextlib.contextmanager
def of_first(context: contextlib.AbstractContextManager[Any]) -> Iterator[None]:
    """Enter and leave a context in the first process alone; if that raises UserError, all of them end."""
    with contextlib.ExitStack() as stack:

        def enter() -> None:
            stack.enter_context(context)

        by_first(enter)
        yield
        by_first(stack.close)


def arrays_of_first(tree: Any, like: Any) -> Any:
    """Return in every process the arrays of NumPy that the first one has, bit for bit.

    `like` is a pytree of the same structure with shapes and types, and `tree` is only used in the first process.
    """
    if STATE.member is None:
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
    if STATE.member is not None and not STATE.stop:
        STATE.asked += 1
        STATE.stop = multihost_utils.reached_preemption_sync_point(STATE.asked)
    return STATE.stop


def stoppable(
    count: Callable[[int, int, float], None] = lambda done, total, speed: None,
) -> Callable[[int, int, float], None]:
    """Return a callback of progress that also stops the job if several processes have agreed on that."""

    def count_or_stop(done: int, total: int, speed: float) -> None:
        count(done, total, speed)
        if stop_agreed():
            raise KeyboardInterrupt

    return count_or_stop


@contextlib.contextmanager
def stopping_together() -> Iterator[None]:
    """Within, a signal to one of several processes is only heard by `stop_agreed`, which all must ask.

    Elsewhere it raises KeyboardInterrupt at once, as in a process that is alone, and ends the others, too.
    """
    STATE.together = True
    try:
        yield
    finally:
        STATE.together = False


def scratch_place() -> Path:
    """Return a new folder for what a process other than the first one writes; it is deleted at the end."""
    if STATE.folder is None:
        STATE.folder = Path(tempfile.mkdtemp(prefix="jaxalign-"))
    return Path(tempfile.mkdtemp(dir=STATE.folder))


def forget_scratch() -> None:
    """Delete what this process has written in `scratch_place`."""
    if STATE.folder is not None:
        shutil.rmtree(STATE.folder, ignore_errors=True)
        STATE.folder = None


def coordination_client() -> Any:
    """Return JAX's connection to the first process, which it has no public name for."""
    from jax._src.distributed import global_state

    return global_state.client
