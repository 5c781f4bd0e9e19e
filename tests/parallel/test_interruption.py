import contextlib
import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from jaxalign.parallel import interruption
from jaxalign.parallel.interruption import interruptible
from jaxalign.training.loop import stop_signals


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


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2])
def test_a_signal_to_stop_ends_the_work_like_ctrl_c_and_the_handler_comes_back(number):
    before = signal.getsignal(number)

    def work():
        os.kill(os.getpid(), number)
        time.sleep(30)

    with pytest.raises(KeyboardInterrupt), interruptible():
        work()
    assert signal.getsignal(number) is before


IN_COMPILED_CODE = """
import hashlib
import threading
from pathlib import Path
from jaxalign.parallel.interruption import before_second_ends, interruptible

with interruptible(), before_second_ends(lambda number: Path(TOLD).write_text(str(number))):
    threading.Timer(1, print, ["ready"], {"flush": True}).start()  # once the main thread is in compiled code
    hashlib.pbkdf2_hmac("sha256", b"", b"", 10**9)  # some minutes in which Python hears nothing
"""


@pytest.mark.slow
def test_a_second_signal_ends_a_process_at_once_that_is_in_compiled_code(tmp_path):
    code = IN_COMPILED_CODE.replace("TOLD", repr(str(tmp_path / "told")))
    with subprocess.Popen([sys.executable, "-c", code], stdout=-1, stderr=-1, text=True) as process:
        try:
            assert process.stdout.readline() == "ready\n"
            process.send_signal(signal.SIGUSR2)
            for _ in range(30):  # on a busy machine, signals that come one by one may be heard together
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(timeout=1)
                    break
                process.send_signal(signal.SIGTERM)
            assert process.wait(timeout=10) == 128 + signal.SIGTERM
        finally:
            process.kill()
        assert process.stderr.read() == "stopped at once by a second signal (SIGTERM)\n"
    assert (tmp_path / "told").read_text() == str(signal.SIGTERM.value)


def test_signals_that_come_together_count_as_one(monkeypatch):
    monkeypatch.setattr(interruption, "AS_ONE", 60.0)  # on a busy machine 0.1 s may pass, which would end pytest
    ended = []

    def work():
        with stop_signals() as stopped:
            for _ in range(2):  # `timeout` sends one to the process, and one to its group
                os.kill(os.getpid(), signal.SIGTERM)
            ended.append(stopped())

    with pytest.raises(KeyboardInterrupt), interruptible():
        work()
    assert ended == [True]


@pytest.fixture
def requeued():
    """The handler of a launcher that requeues its job on SIGUSR2, as submitit does; what it was called with."""
    calls = []
    before = signal.signal(signal.SIGUSR2, lambda number, frame: calls.append(number))
    yield calls
    signal.signal(signal.SIGUSR2, before)


def test_a_handler_that_a_launcher_has_set_for_a_warning_stays(requeued):
    with interruptible():
        signal.raise_signal(signal.SIGUSR2)
    assert requeued == [signal.SIGUSR2]


def test_training_notes_a_warning_and_hands_it_to_the_launcher_at_its_end(requeued):
    with interruptible(), stop_signals() as stopped:
        signal.raise_signal(signal.SIGUSR2)
        assert stopped() and not requeued
    assert requeued == [signal.SIGUSR2]


def test_training_notes_a_warning_and_the_command_ends_after_it():
    with pytest.raises(KeyboardInterrupt), interruptible(), stop_signals():
        signal.raise_signal(signal.SIGUSR2)


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
