"""SIGTERM, Ctrl-C, and the warnings SIGUSR1 and SIGUSR2 of a scheduler stop a command, and none of them is lost."""

import contextlib
import signal
import sys
import threading
from collections.abc import Iterator
from typing import Any

AGAIN_AFTER = 0.1
"""Seconds until an interrupt that was lost is sent again."""

WARNINGS = (signal.SIGUSR1, signal.SIGUSR2)
"""What schedulers send some time before they end a job: Slurm's `--signal`, and submitit."""

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, *WARNINGS)
"""The signals on which training writes a checkpoint and stops."""


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """Let SIGTERM and the `WARNINGS` raise KeyboardInterrupt as Ctrl-C does, and send a lost interrupt again.

    A warning for which a handler is set already keeps it: submitit requeues a job in its own.

    Python drops what is raised in a callback of the garbage collector, of which jax has one, and in `__del__`. Such an
    exception is reported to `sys.unraisablehook` alone. In any other thread than the main one, this does nothing.
    """
    timers: list[threading.Timer] = []
    main = threading.current_thread().ident
    assert main is not None

    def report(dropped: Any) -> None:
        if not issubclass(dropped.exc_type, KeyboardInterrupt):
            return hook(dropped)
        # Not at once: until the callback has ended, the interrupt would be dropped again.
        timers.append(threading.Timer(AGAIN_AFTER, signal.pthread_kill, (main, signal.SIGTERM)))
        timers[-1].daemon = True
        timers[-1].start()

    free = [number for number in WARNINGS if signal.getsignal(number) == signal.SIG_DFL]
    try:
        before = {number: signal.signal(number, signal.default_int_handler) for number in (signal.SIGTERM, *free)}
    except ValueError:  # not the main thread
        yield
        return
    hook, sys.unraisablehook = sys.unraisablehook, report
    try:
        yield
    finally:
        for timer in timers:
            timer.cancel()
        sys.unraisablehook = hook
        for number, handler in before.items():
            signal.signal(number, handler or signal.SIG_DFL)
