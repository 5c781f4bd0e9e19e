"""SIGTERM and Ctrl-C stop a command, and neither is lost."""

import contextlib
import signal
import sys
import threading
from collections.abc import Iterator
from typing import Any

AGAIN_AFTER = 0.1
"""Seconds until an interrupt that was lost is sent again."""


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """Let SIGTERM raise KeyboardInterrupt, as Ctrl-C does, and send an interrupt again if it was lost.

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

    try:
        before = signal.signal(signal.SIGTERM, signal.default_int_handler)
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
        signal.signal(signal.SIGTERM, before or signal.SIG_DFL)
