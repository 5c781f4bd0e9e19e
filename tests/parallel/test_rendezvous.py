"""What the environment says of several processes, and how they meet: each thing that is wrong has a line of its own."""

import socket
import threading
import time

import pytest

from jaxalign.errors import UserError
from jaxalign.parallel import distributed
from jaxalign.parallel import machine as machine_module
from jaxalign.parallel.distributed import check_alone, check_joined
from jaxalign.parallel.joining import own_gpu
from jaxalign.parallel.machine import machine, process_space
from jaxalign.parallel.rendezvous import (
    Membership,
    expected_processes,
    is_first_named,
    join_seconds,
    meet,
    membership,
)

OURS = {"JAX_COORDINATOR_ADDRESS": "10.0.0.2:8476", "JAX_NUM_PROCESSES": "4", "JAX_PROCESS_ID": "3"}
SLURM = {
    "SLURM_JOB_ID": "70001",
    "SLURM_STEP_NUM_TASKS": "2",
    "SLURM_STEP_NUM_NODES": "2",
    "SLURM_STEP_NODELIST": "gpu[07-08],big1",
    "SLURM_PROCID": "1",
}
MPI = {
    "OMPI_COMM_WORLD_SIZE": "8",
    "OMPI_COMM_WORLD_LOCAL_SIZE": "4",
    "OMPI_COMM_WORLD_RANK": "5",
    "OMPI_MCA_orte_hnp_uri": "1531576320.0;tcp://10.96.0.1,10.148.0.1:34911",
}
POD = {"TPU_WORKER_HOSTNAMES": "10.0.0.7,10.0.0.8", "TPU_WORKER_ID": "0"}


@pytest.mark.parametrize(
    ("environment", "found"),
    [
        ({}, None),
        ({**OURS, "JAX_NUM_PROCESSES": "1"}, None),
        ({"TPU_WORKER_HOSTNAMES": "localhost"}, None),
        ({"SLURM_NTASKS": "4", "SLURM_STEP_NUM_TASKS": "1", "SLURM_PROCID": "0"}, None),
        (OURS, Membership("10.0.0.2:8476", 4, 3)),
        (SLURM, Membership(f"gpu07:{61440 + 70001 % 4096}", 2, 1, many_hosts=True)),
        (SLURM | {"JAX_COORDINATOR_PORT": "8476"}, Membership("gpu07:8476", 2, 1, many_hosts=True)),
        (MPI, Membership("10.96.0.1:8476", 8, 5, many_hosts=True)),
        (
            MPI | {"OMPI_MCA_orte_hnp_uri": "1.0;tcp6://[fe80::2,fe80::3]:43370"},
            Membership("[fe80::2]:8476", 8, 5, True),
        ),
        (POD, Membership("10.0.0.7:8476", 2, 0, many_hosts=True)),
    ],
)
def test_the_environment_says_which_of_several_processes_this_one_is(environment, found):
    assert membership(environment) == found
    assert expected_processes(environment) == (1 if found is None else found.count)
    assert is_first_named(environment) == (found is None or found.number == 0)


@pytest.mark.parametrize(
    ("environment", "line"),
    [
        ({"JAX_NUM_PROCESSES": "two"}, "JAX_NUM_PROCESSES=two in the environment is not a whole number"),
        ({"JAX_COORDINATOR_ADDRESS": "a:1"}, "JAX_COORDINATOR_ADDRESS is set, but JAX_NUM_PROCESSES is not"),
        (
            {"JAX_NUM_PROCESSES": "2"},
            "names 2 processes, but not which one this is: set JAX_PROCESS_ID",
        ),
        (OURS | {"JAX_PROCESS_ID": "4"}, r"this is process 4, and there are 4 \(0 to 3\): set JAX_PROCESS_ID"),
        (OURS | {"JAX_COORDINATOR_ADDRESS": "10.0.0.2"}, "JAX_COORDINATOR_ADDRESS=10.0.0.2 is not HOST:PORT"),
        ({"JAX_NUM_PROCESSES": "2", "JAX_PROCESS_ID": "0"}, "not where the first one is: set JAX_COORDINATOR_ADDRESS"),
        (
            SLURM | {"JAX_COORDINATOR_ADDRESS": "localhost:1"},
            "localhost:1 is another place on each host",
        ),
        (MPI | {"JAX_COORDINATOR_ADDRESS": "127.0.1.1:1"}, "127.0.1.1:1 is another place on each host"),
        (POD | {"JAX_COORDINATOR_ADDRESS": "[::1]:1"}, "is another place on each host"),
    ],
)
def test_an_environment_that_makes_no_sense_is_refused(environment, line):
    with pytest.raises(UserError, match=line):
        membership(environment)
    assert is_first_named(environment)  # which says what is wrong where they join


def test_a_command_that_works_in_one_process_refuses_several(monkeypatch):
    monkeypatch.setattr(distributed, "expected_processes", lambda: 4)
    with pytest.raises(UserError, match=r"^the environment names 4 processes, and one does this work: start the"):
        check_joined()
    monkeypatch.setattr(distributed.STATE, "member", Membership("a:1", 4, 0))
    check_joined()
    with pytest.raises(UserError, match="one does this work"):
        check_alone()  # although they have joined in an earlier job of a multirun


def test_how_long_is_waited_is_a_variable():
    assert join_seconds({}) == 300
    assert join_seconds({"JAXALIGN_JOIN_SECONDS": "20"}) == 20
    with pytest.raises(UserError, match="JAXALIGN_JOIN_SECONDS=99999999999 in the environment is too long: give at"):
        join_seconds({"JAXALIGN_JOIN_SECONDS": "99999999999"})
    with pytest.raises(UserError, match="in the environment is not a whole number"):
        join_seconds({"JAXALIGN_JOIN_SECONDS": "9" * 5000})


@pytest.fixture
def address():
    with socket.create_server(("127.0.0.1", 0)) as server:
        return f"127.0.0.1:{server.getsockname()[1]}"


def met(address: str, count: int, *numbers: int, seconds: float = 5.0) -> dict[int, object]:
    """Let some of `count` processes meet; return for each the hosts or the error that it gets."""
    found: dict[int, object] = {}

    def one(number: int) -> None:
        try:
            found[number] = meet(Membership(address, count, number), seconds)
        except (UserError, SystemExit) as error:
            found[number] = error

    threads = [threading.Thread(target=one, args=(number,)) for number in numbers]
    for thread in threads:
        thread.start()
        time.sleep(0.05)  # also one that comes before the first is there
    for thread in threads:
        thread.join()
    return found


def test_processes_meet_whoever_comes_first_and_whoever_else_looks_at_the_port(address):
    stranger = threading.Thread(target=lambda: _knock(address))
    stranger.start()
    machines = [machine()] * 3
    assert met(address, 3, 1, 0, 2) == {0: machines, 1: machines, 2: machines}
    stranger.join()
    assert met(address, 2, 0, 1) == {0: machines[:2], 1: machines[:2]}  # the port is free again at once


def _knock(address: str) -> None:
    for _ in range(20):
        try:
            with socket.create_connection(("127.0.0.1", int(address.rpartition(":")[2])), timeout=1) as caller:
                return caller.sendall(b"GET / HTTP/1.1\r\n\r\n")
        except OSError:
            time.sleep(0.02)


@pytest.mark.slow
def test_the_first_process_says_which_are_missing_and_the_others_end_without_a_word(address):
    found = met(address, 4, 0, 2, seconds=3.0)
    assert str(found[0]).startswith(f"after 3 s, 2 of 4 processes are at {address} (which only this host can reach); ")
    assert "missing: 1, 3: start them all, or set JAX_NUM_PROCESSES" in str(found[0])
    assert isinstance(found[2], SystemExit) and found[2].code == 2


def test_of_any_number_of_missing_processes_the_first_are_named(address):
    found = met(address, 10**12, 0, seconds=0.2)  # a list of all of them would not fit into the memory
    assert f"1 of {10**12} processes are at" in str(found[0])
    assert "missing: 1, 2, 3, 4, 5, 6, 7, 8, ...: start them all" in str(found[0])


@pytest.mark.slow
def test_a_process_that_gave_up_is_not_there_for_those_that_wait_on(address):
    found = {}
    first = threading.Thread(target=lambda: found.update(met(address, 3, 0, seconds=3.0)))
    first.start()
    host, port = address.split(":")
    for _ in range(300):
        try:
            caller = socket.create_connection((host, int(port)), timeout=5)
            break
        except OSError:  # the first is not there yet
            time.sleep(0.02)
    with caller:
        caller.sendall(f"jaxalign 1 {machine()}\n".encode())
        time.sleep(0.2)
    assert isinstance(met(address, 3, 2)[2], SystemExit)  # it was not told to go on with the others
    first.join()
    assert "after 3 s, 2 of 3 processes are at" in str(found[0]) and "missing: 1: start" in str(found[0])


def test_machines_of_one_name_are_told_apart_by_their_boots(monkeypatch, tmp_path):
    boots = []
    for boot in ("first", "second", ""):
        (tmp_path / "boot_id").write_text(f"{boot}\n")
        monkeypatch.setattr(machine_module, "BOOT", tmp_path / "boot_id")
        boots.append((machine(), process_space()))
    (one, space), (other, other_space), (unknown, no_space) = boots
    assert one != other and space != other_space and unknown == socket.gethostname() and no_space is None
    monkeypatch.setattr(socket, "gethostname", lambda: "container")
    assert machine() == "container"
    assert [own_gpu(number, [one, other], {}) for number in range(2)] == [None, None]
    assert [own_gpu(number, [one, other, one], {}) for number in range(3)] == [[0], None, [1]]
    assert own_gpu(0, [one, one], {"JAX_LOCAL_DEVICE_IDS": "3"}) is None


def test_a_first_process_that_does_not_answer_is_named(address):
    line = str(met(address, 2, 1, seconds=0.3)[1])
    assert line.startswith(f"process 1 of 2 did not reach the first process at {address}, which here is an address of ")
    assert "(Connection refused): start it there, open the port, or correct JAX_COORDINATOR_ADDRESS" in line


def test_a_port_that_is_taken_is_named(address):
    with socket.create_server(("", int(address.rpartition(":")[2]))):
        line = str(met(address, 2, 0, seconds=0.3)[0])
    assert line.startswith("port ") and "Address already in use; give another one in JAX_COORDINATOR_ADDRESS" in line
