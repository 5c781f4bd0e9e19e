import os
import signal
import sys
import threading
import time

import pytest

from jaxalign.runs.interruption import interruptible


class Closing:
    """What raises in `__del__`, or in a callback of the garbage collector as jax has one, is dropped by Python."""

    def __del__(self):
        signal.raise_signal(signal.SIGINT)


@pytest.fixture
def heard():
    """Ctrl-C raises KeyboardInterrupt, as in a command; a worker of pytest-xdist ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.slow
@pytest.mark.usefixtures("heard")
def test_a_ctrl_c_that_python_drops_still_stops_the_work():
    before, began = sys.unraisablehook, time.monotonic()

    def work():
        closing = Closing()
        del closing
        time.sleep(30)

    with pytest.raises(KeyboardInterrupt), interruptible():
        work()
    assert time.monotonic() - began < 20
    assert sys.unraisablehook is before


def test_sigterm_stops_the_work_like_ctrl_c_and_the_handler_comes_back():
    before = signal.getsignal(signal.SIGTERM)

    def work():
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(30)

    with pytest.raises(KeyboardInterrupt), interruptible():
        work()
    assert signal.getsignal(signal.SIGTERM) is before


def test_other_dropped_exceptions_are_reported_as_before(monkeypatch):
    seen = []
    monkeypatch.setattr(sys, "unraisablehook", seen.append)

    class Broken:
        def __del__(self):
            raise ZeroDivisionError

    with interruptible():
        broken = Broken()
        del broken
    assert [one.exc_type for one in seen] == [ZeroDivisionError]


def test_a_thread_may_work_without_signals():
    done = []

    def work():
        with interruptible():
            done.append(True)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert done == [True]
