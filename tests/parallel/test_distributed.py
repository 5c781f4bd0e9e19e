"""What the first of several processes decides is what all do. Here, one process plays all of them in turn."""

import contextlib
import signal

import pytest

from jaxalign.errors import UserError
from jaxalign.parallel import distributed
from jaxalign.parallel.distributed import STATE, by_first, forget_scratch, is_first, of_first, stopping_together
from jaxalign.parallel.interruption import interruptible
from jaxalign.parallel.joining import _signals_are_shared
from jaxalign.parallel.rendezvous import Membership
from jaxalign.runs.directory import Run, open_run
from jaxalign.runs.of_first import file_of_first, open_run_of_first


class Connection(dict):
    """What JAX keeps at the first process for all of them."""

    key_value_set = dict.__setitem__

    def blocking_key_value_get(self, key, milliseconds):
        return self[key]


@pytest.fixture
def play(monkeypatch):
    """Return a function that lets this process be one of two; both begin with nothing told."""
    connection = Connection()
    monkeypatch.setattr(distributed, "coordination_client", lambda: connection)
    before = vars(STATE).copy()

    def play(number: int) -> None:
        STATE.member, STATE.told = Membership("a:1", 2, number), 0

    yield play
    forget_scratch()
    vars(STATE).update(before)


def test_all_get_what_the_first_decides(play):
    for number in range(2):
        play(number)
        assert by_first(lambda number=number: {"step": 3, "by": number}) == {"step": 3, "by": 0}
        assert by_first(lambda: float("inf")) == float("inf")
        assert is_first() == (number == 0)


def test_what_the_first_refuses_ends_the_others_without_a_word(play):
    def refuse():
        raise UserError("the disk is full")

    play(0)
    with pytest.raises(UserError, match="the disk is full"):
        by_first(refuse)
    play(1)
    with pytest.raises(SystemExit) as end:
        by_first(refuse)
    assert end.value.code == 2


def test_the_first_alone_enters_a_context(play):
    entered = []

    @contextlib.contextmanager
    def context(number):
        entered.append(number)
        yield
        entered.append(-number)

    for number in range(2):
        play(number)
        with of_first(context(number + 5)):
            pass
    assert entered == [5, -5]


def opened(folder, **identity) -> Run:
    def open_it() -> Run:
        return open_run(identity, identity, files=["questionnaire.jsonl", "adapter"], dir=folder)

    return open_run_of_first(identity, open_it, ["questionnaire.jsonl", "adapter"])


def test_another_process_has_the_records_of_the_run_and_writes_elsewhere(play, tmp_path):
    run = opened(tmp_path / "new", seed=1)
    run.questionnaire.write_text('{"when": "before"}\n')
    (run.adapter / "1").mkdir(parents=True)
    (run.adapter / "1" / "weights").write_bytes(bytes(range(256)))
    (run.path / "own.txt").write_text("not of the run")
    play(0)
    assert opened(tmp_path / "new", seed=1) == run
    play(1)
    other = opened(tmp_path / "new", seed=1)
    assert other.path != run.path and other.mirror is None
    assert other.questionnaire.read_text() == run.questionnaire.read_text()
    assert (other.adapter / "1" / "weights").read_bytes() == bytes(range(256))
    assert other.config.read_text() == run.config.read_text() and not (other.path / "own.txt").exists()
    forget_scratch()
    assert not other.path.exists() and run.questionnaire.exists()


def test_another_process_gets_a_copy_of_a_file_if_there_is_one(play, tmp_path):
    old, new = tmp_path / "old.jsonl", tmp_path / "new.jsonl"
    old.write_text("{}\n")
    play(0)
    assert (file_of_first(old), file_of_first(new)) == (old, new)
    play(1)
    copied, other = file_of_first(old), file_of_first(new)
    assert copied != old and copied.read_text() == "{}\n" and not other.exists()
    other.write_text("{}\n")
    assert not new.exists()


def test_a_process_with_other_input_is_refused(play, tmp_path):
    play(0)
    opened(tmp_path / "run", seed=1, content={"dataset": "abc"})
    play(1)
    with pytest.raises(UserError, match="it has other input than the first process: dataset was 'abc' and is 'abd'; "):
        opened(tmp_path / "run", seed=1, content={"dataset": "abd"})


def test_a_signal_raises_at_once_until_the_processes_stop_together(play):
    play(0)
    noted = []
    STATE.tell_jax = noted.append
    with interruptible(), _signals_are_shared(), stopping_together():
        signal.raise_signal(signal.SIGUSR1)
    assert noted == [signal.SIGTERM]
    with pytest.raises(KeyboardInterrupt), interruptible(), _signals_are_shared():
        signal.raise_signal(signal.SIGTERM)
    assert noted == [signal.SIGTERM]


def test_after_a_common_stop_the_launcher_hears_of_its_signal(play):
    play(0)
    calls = []
    before = signal.signal(signal.SIGUSR2, lambda number, frame: calls.append(number))
    try:
        with interruptible(), _signals_are_shared(), stopping_together():
            signal.raise_signal(signal.SIGUSR2)
            assert not calls
            STATE.stop = True
    finally:
        signal.signal(signal.SIGUSR2, before)
    assert calls == [signal.SIGUSR2]
