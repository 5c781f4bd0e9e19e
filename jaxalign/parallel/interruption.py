"""SIGTERM, Ctrl-C, and the warnings SIGUSR1 and SIGUSR2 of a scheduler stop a command, and none of them is lost.

The first one ends the work where it can be ended well: Python hears it once a program is compiled or computed. The
second one ends the process wherever it is.
"""

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

AGAIN_AFTER = 0.1
"""Seconds until an interrupt that was lost is sent again."""

AS_ONE = 0.1
"""Seconds in which several signals count as one: `timeout` sends its own to the process and to the process's group."""

PATIENCE = 1.0
"""The largest number of seconds from a second signal to the end of the process."""

WARNINGS = (signal.SIGUSR1, signal.SIGUSR2)
"""What schedulers send some time before they end a job: Slurm's `--signal`, and submitit."""

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, *WARNINGS)
"""The signals on which training writes a checkpoint and stops."""


@dataclass
class _Second:
    """What is known of the second signal, of which Python's own handlers may hear much too late."""

    on: bool = False
    own: int = 0
    """How many of the signals to come were sent by this process to itself."""
    before_end: list[Callable[[int], None]] = field(default_factory=list)


_SECOND = _Second()


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """Let SIGTERM and the `WARNINGS` raise KeyboardInterrupt as Ctrl-C does; a second signal ends the process at once.

    The status is then 128 and the signal's number, as a shell has it. A warning for which a handler is set already
    keeps it: submitit requeues a job in its own.

    Python drops what is raised in a callback of the garbage collector, of which jax has one, and in `__del__`. Such an
    exception is reported to `sys.unraisablehook` alone. A lost interrupt is sent again. In any other thread than the
    main one, this does nothing.
    """
    timers: list[threading.Timer] = []
    raised = False
    main = threading.current_thread().ident
    assert main is not None

    def interrupt(number: int, _frame: Any) -> None:
        nonlocal raised
        if not raised:  # what comes after the first does not disturb its end
            raised = True
            raise KeyboardInterrupt

    def send_again() -> None:
        nonlocal raised
        raised = False
        _SECOND.own += 1
        signal.pthread_kill(main, signal.SIGTERM)

    def report(dropped: Any) -> None:
        if not issubclass(dropped.exc_type, KeyboardInterrupt):
            return hook(dropped)
        # Not at once: until the callback has ended, the interrupt would be dropped again.
        timers.append(threading.Timer(AGAIN_AFTER, send_again))
        timers[-1].daemon = True
        timers[-1].start()

    free = (signal.SIG_DFL, signal.default_int_handler)
    ours = [number for number in STOP_SIGNALS if number == signal.SIGTERM or signal.getsignal(number) in free]
    try:
        before = {number: signal.signal(number, interrupt) for number in ours}
    except ValueError:  # not the main thread
        yield
        return
    hook, sys.unraisablehook = sys.unraisablehook, report
    try:
        with _listening():
            yield
    finally:
        for timer in timers:
            timer.cancel()
        sys.unraisablehook = hook
        for number, handler in before.items():
            signal.signal(number, handler or signal.SIG_DFL)


def second_ends() -> bool:
    """Return whether a second signal ends this process by itself, so that no handler need see to it."""
    return _SECOND.on


@contextlib.contextmanager
def before_second_ends(call: Callable[[int], None]) -> Iterator[None]:
    """Within, `call` is called with the number of a second signal before it ends this process.

    It is called in a thread of its own, and is not waited for longer than `PATIENCE`.
    """
    _SECOND.before_end.append(call)
    try:
        yield
    finally:
        _SECOND.before_end.remove(call)


@contextlib.contextmanager
def _listening() -> Iterator[None]:
    """Watch for signals in a thread, which hears them also while the main thread is in compiled code."""
    out, into = os.pipe()
    os.set_blocking(into, False)
    heard_before = signal.set_wakeup_fd(into, warn_on_full_buffer=False)
    on_before, _SECOND.on = _SECOND.on, True
    thread = threading.Thread(target=_listen, args=(out,), name="signals", daemon=True)
    thread.start()
    try:
        yield
    finally:
        _SECOND.on = on_before
        signal.set_wakeup_fd(heard_before)
        os.close(into)
        thread.join()
        os.close(out)


def _listen(heard: int) -> None:
    first: float | None = None
    while found := os.read(heard, 1):
        if found[0] not in STOP_SIGNALS:
            continue
        if _SECOND.own:
            _SECOND.own -= 1
        elif first is None:
            first = time.monotonic()
        elif time.monotonic() - first > AS_ONE:
            _end_at_once(found[0])


def _end_at_once(number: int) -> None:
    def last() -> None:
        if os.isatty(1):
            os.write(1, b"\x1b[?25h")  # a display of progress has hidden the cursor
        os.write(2, f"stopped at once by a second signal ({signal.Signals(number).name})\n".encode())
        for call in reversed(_SECOND.before_end):
            with contextlib.suppress(Exception):
                call(number)

    thread = threading.Thread(target=last, daemon=True)
    thread.start()
    thread.join(PATIENCE)
    os._exit(128 + number)
