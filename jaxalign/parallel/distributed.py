"""How many processes a job has. jaxalign runs in one, on all devices of its host."""

import os
from collections.abc import Mapping

from jaxalign.errors import UserError

ADDRESS, COUNT = "JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES"
"""The environment variables with the address of the first of several processes, and with their number."""


def check_one_process(environment: Mapping[str, str] = os.environ) -> None:
    """Check that this process is alone, because several would all do the same work and write the same files.

    Raises:
        UserError: the environment names several processes, or a variable is not a number.
    """
    if (count := expected_processes(environment)) > 1:
        raise UserError(
            f"the environment names {count} processes, and jaxalign runs in one, on all devices of its host: start it "
            "once, on one host"
        )


def expected_processes(environment: Mapping[str, str] = os.environ) -> int:
    """Return the number of processes that the environment names: ours, Slurm's, Open MPI's or a TPU pod's."""
    for name in (COUNT, "SLURM_STEP_NUM_TASKS", "OMPI_COMM_WORLD_SIZE"):
        text = environment.get(name)
        if text is None:
            continue
        if not text.isdecimal():
            raise UserError(f"{name}={text} in the environment is not a whole number")
        if int(text):
            return int(text)
    if ADDRESS in environment:
        return 2  # at least
    return len([host for host in environment.get("TPU_WORKER_HOSTNAMES", "").split(",") if host]) or 1
