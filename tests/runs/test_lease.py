import json
import subprocess
import sys
from pathlib import Path

import pytest

from jaxalign.errors import UserError
from jaxalign.parallel.machine import process_space
from jaxalign.runs import lease
from jaxalign.runs.bucket import Bucket
from jaxalign.runs.lease import leased


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(lease, "SETTLE", {False: 0.0})
    monkeypatch.setattr(lease, "STALE", 0.2)
    monkeypatch.setattr(lease, "_gone", set())


def other(folder: Path, beat: int, **changes) -> None:
    """Write the lease of a process on another machine."""
    record = {"owner": "other", "host": "far", "process": 7, "machine": "far", "since": "noon", "beat": beat, **changes}
    (folder / "lease.json").write_text(json.dumps(record))


def hold(folder: Path, said: list[str], name: str = "lease.json"):
    return leased(Bucket(str(folder)), name, "RUN", said.append)


def test_a_lease_is_held_and_given_back(tmp_path):
    with hold(tmp_path, []) as check:
        check()
        assert (tmp_path / "lease.json").exists()
    assert not (tmp_path / "lease.json").exists()


def test_a_holder_that_shows_signs_of_life_is_left_alone(tmp_path):
    other(tmp_path, 1)
    said = []

    def say(line):
        said.append(line)
        other(tmp_path, 2)  # while we wait

    with pytest.raises(UserError, match=r"RUN is in use by process 7 on far .*when .*lease.json is deleted"):
        leased(Bucket(str(tmp_path)), "lease.json", "RUN", say).__enter__()
    assert len(said) == 1 and "waiting up to" in said[0]
    assert json.loads((tmp_path / "lease.json").read_text())["owner"] == "other"


def test_a_holder_without_a_sign_of_life_is_followed_and_waited_for_only_once(tmp_path):
    other(tmp_path, 1)
    said = []
    with hold(tmp_path, said) as check:
        check()
        (tmp_path / "stage").mkdir()
        other(tmp_path / "stage", 1)
        with hold(tmp_path / "stage", said):
            pass
    assert len(said) == 1


def test_a_process_of_this_machine_that_has_ended_is_followed_at_once(tmp_path):
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    other(tmp_path, 1, machine=process_space(), process=process.pid)
    said = []
    with hold(tmp_path, said):
        pass
    assert not said


@pytest.mark.parametrize("harm", [lambda folder: other(folder, 1), lambda folder: (folder / "lease.json").unlink()])
def test_a_holder_whose_lease_is_taken_or_deleted_learns_of_it_and_leaves_the_other_alone(tmp_path, harm):
    with hold(tmp_path, []) as check:
        harm(tmp_path)
        left = list(tmp_path.iterdir())
        with pytest.raises(lease.LeaseLostError, match="this job stops"):
            check()
    assert list(tmp_path.iterdir()) == left


def test_of_two_that_began_together_the_later_one_has_it(tmp_path, monkeypatch):
    monkeypatch.setattr(lease.time, "sleep", lambda seconds: other(tmp_path, 0))
    with pytest.raises(UserError, match="RUN is in use by process 7 on far"):
        hold(tmp_path, []).__enter__()
