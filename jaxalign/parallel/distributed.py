"""Several processes, one for each host or card, that run one command together (JAX's multi-controller SPMD).

Each process runs the same program on the same data, and holds its own part of the arrays. Results that the host reads
are whole in every process. The first process alone writes the run's directory and speaks; the others keep a copy of the
directory in a temporary folder, so they take every decision as the first one does (`same_folder`).
"""

import io
import itertools
import json
import os
import re
import socket
import tarfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

import jax
import numpy as np

from jaxalign.errors import UserError

T = TypeVar("T")

ADDRESS, COUNT, NUMBER = "JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID"
"""The environment variables with the address host:port of the first process, the number of processes, and the number of
this one. Under Slurm, Open MPI and on TPU pods JAX finds these three by itself; the number alone is checked."""

TIMEOUT = "JAXALIGN_TIMEOUT"
"""The environment variable with the seconds that processes wait for each other; 300 without it."""

SHUTDOWN = 30
"""Seconds that a process which has ended waits for the others."""

_steps = itertools.count()  # the steps at which this process has asked `preempted`, over all stages


def join_processes(environment: Mapping[str, str] = os.environ) -> None:
    """Connect this process with the others that the environment names; do nothing where there are none.

    It must be called before JAX looks for devices.

    Raises:
        UserError: a variable is missing or not a number, the coordinator does not answer, or fewer processes were found
            than the environment names.
    """
    expected = expected_processes(environment)
    if expected == 1 or jax.distributed.is_initialized():
        return
    timeout = _whole(environment, TIMEOUT) or 300
    address = environment.get(ADDRESS)
    count, number = _whole(environment, COUNT), _whole(environment, NUMBER)
    if address is not None and (count is None or number is None):
        raise UserError(f"missing in the environment: {COUNT if count is None else NUMBER} (it goes with {ADDRESS})")
    if address is not None and re.fullmatch(r".+:\d+", address) is None:
        raise UserError(f"{ADDRESS}={address} is not host:port, such as 10.0.0.2:8476")
    if address is not None and number == 0 and (place := _elsewhere(address, environment)):
        raise UserError(place)
    if address is not None and number != 0:
        _wait_for(address, timeout)
    try:
        # After an error in one process the others end within this time too, and do not wait for it.
        jax.distributed.initialize(
            address, count, number, initialization_timeout=timeout, shutdown_timeout_seconds=SHUTDOWN
        )
    except (RuntimeError, ValueError) as error:
        line = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        raise UserError(f"the {expected} processes did not find each other: {line}") from error
    if jax.process_count() != expected:
        raise UserError(
            f"the environment names {expected} processes, and {jax.process_count()} were found: stop the job, and "
            "start all of them together"
        )


def expected_processes(environment: Mapping[str, str] = os.environ) -> int:
    """Return the number of processes that the environment names: ours, Slurm's, Open MPI's or a TPU pod's."""
    for name in (COUNT, "SLURM_STEP_NUM_TASKS", "OMPI_COMM_WORLD_SIZE"):
        if found := _whole(environment, name):
            return found
    if ADDRESS in environment:
        return 2  # at least; `join_processes` asks for the number
    return len([host for host in environment.get("TPU_WORKER_HOSTNAMES", "").split(",") if host]) or 1


def _whole(environment: Mapping[str, str], name: str) -> int | None:
    text = environment.get(name)
    if text is not None and not text.isdecimal():
        raise UserError(f"{name}={text} in the environment is not a whole number")
    return None if text is None else int(text)


def _elsewhere(address: str, environment: Mapping[str, str]) -> str | None:
    """Return what is wrong with a coordinator on loopback that hosts of a job shall reach; None if nothing is."""
    hosts = _whole(environment, "SLURM_JOB_NUM_NODES") or 1
    host = address.rpartition(":")[0]
    try:
        found = socket.gethostbyname(host)
    except OSError:
        return f"{ADDRESS}: there is no host '{host}'"
    if hosts > 1 and found.startswith("127."):
        return f"{ADDRESS}={address} is {found}, which no other of the {hosts} hosts reaches: give its own address"
    return None


def _wait_for(address: str, timeout: int) -> None:
    """Wait until the coordinator listens. JAX would end the process with pages of its own if it never does."""
    host, _, port = address.rpartition(":")
    until = time.monotonic() + timeout
    while True:
        try:
            socket.create_connection((host, int(port)), timeout=1).close()
            return
        except OSError as error:
            if time.monotonic() > until:
                raise UserError(
                    f"the coordinator {address} did not answer in {timeout} s ({error.strerror or error}): check that "
                    f"process 0 runs there and that the port is open, or give {TIMEOUT} more seconds"
                ) from error
            time.sleep(0.2)


def is_first() -> bool:
    """Return whether this process is the one that writes and speaks."""
    return jax.process_index() == 0


def told(value: bytes) -> bytes:
    """Return in every process the bytes that the first one gives."""
    if jax.process_count() == 1:
        return value
    from jax.experimental import multihost_utils

    size = int(multihost_utils.broadcast_one_to_all(np.int32(len(value))))
    given = np.frombuffer(value, np.uint8) if is_first() else np.zeros(size, np.uint8)
    return np.asarray(multihost_utils.broadcast_one_to_all(given), np.uint8).tobytes()


def first_decides(decide: Callable[[], T], follow: Callable[[], T]) -> T:
    """Return `decide()` in the first process and then `follow()` in the others; an error of the first stops all.

    Raises:
        UserError: the first process raised it.
    """
    if jax.process_count() == 1:
        return decide()
    made, failed = None, ""
    if is_first():
        try:
            made = decide()
        except UserError as error:
            failed = str(error)
    failed = told(failed.encode()).decode()
    if failed:
        raise UserError(failed)
    return follow() if made is None else made


def same_folder(folder: Path) -> None:
    """Give every process's `folder` the files of the first one's."""
    if jax.process_count() == 1:
        return
    packed = io.BytesIO()
    if is_first():
        with tarfile.open(fileobj=packed, mode="w") as archive:
            archive.add(folder, ".")
    content = told(packed.getvalue())
    if not is_first():
        with tarfile.open(fileobj=io.BytesIO(content)) as archive:
            archive.extractall(folder, filter="data")


def check_same(what: Mapping[str, object]) -> None:
    """Check that every process has the same values, such as hashes of model and data.

    Raises:
        UserError: one of them differs from the first process's, in all processes.
    """
    if jax.process_count() == 1:
        return
    from jax.experimental import multihost_utils

    ours = {key: json.dumps(value, sort_keys=True, default=str) for key, value in what.items()}
    theirs = json.loads(told(json.dumps(ours).encode()))
    wrong = [key for key in ours if theirs.get(key) != ours[key]]
    found = np.asarray(multihost_utils.process_allgather(np.int32(list(ours).index(wrong[0]) if wrong else -1)))
    if (found >= 0).any():
        process = int((found >= 0).argmax())
        raise UserError(
            f"process {process} has another {list(ours)[int(found[process])]} than process 0: give all hosts the same "
            "files and the same command"
        )


def preempted() -> bool:
    """Return whether all processes stop after this step, because one of them got SIGTERM or a notice of preemption.

    Every process must ask after every step. The answer is the same in all.
    """
    from jax.experimental import multihost_utils

    return bool(multihost_utils.reached_preemption_sync_point(next(_steps)))
