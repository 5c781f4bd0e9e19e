"""Two processes of four devices each write what one process writes, stop together, and go on together."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from runs_of_tiny import write_arguments

from jaxalign.errors import UserError
from jaxalign.parallel.distributed import expected_processes, join_processes
from jaxalign.pretrained.safetensors import SafetensorsFolder
from jaxalign.runs.records import read_records

SETTINGS = ["+value=power", "model=tiny", "training.batch_size=4", "training.max_steps=40", "lora.rank=2"]
SETTINGS += ["precision=float32", "training.log_every=1", "training.checkpoint_every=5"]
SETTINGS += ["training.questionnaire=false", "training.validate=false"]
FLAGS = "--xla_backend_optimization_level=0 --xla_force_host_platform_device_count="


def start(folder: Path, run: Path, processes: int, devices: int) -> list[subprocess.Popen]:
    """Start a training in some processes, and return them."""
    data = folder / "arguments.jsonl"
    command = [sys.executable, "-m", "jaxalign.train", f"dataset.path={data}", f"run.dir={run}", *SETTINGS]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    started = []
    for number in range(processes):
        environment = os.environ | {"XLA_FLAGS": FLAGS + str(devices), "PYTHONPATH": str(Path(__file__).parents[2])}
        if processes > 1:
            named = {"JAX_COORDINATOR_ADDRESS": address, "JAX_NUM_PROCESSES": str(processes)}
            environment |= named | {"JAX_PROCESS_ID": str(number), "JAXALIGN_TIMEOUT": "200"}
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        started.append(subprocess.Popen(command, env=environment, text=True, cwd=folder, **pipes))
    return started


def ended(processes: list[subprocess.Popen], code: int = 0) -> list[str]:
    """Return what each process printed, once all have ended with this code."""
    try:
        said = [process.communicate(timeout=400) for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [code] * len(processes), said
    return [out for out, _ in said]


def adapter_of(run: Path) -> dict[str, np.ndarray]:
    folder = SafetensorsFolder(run / "adapter" / "adapter_model.safetensors")
    return {name: np.array(folder.read(name)) for name in folder.names()}


def losses_of(run: Path) -> list[float]:
    return [record["loss"] for record in read_records(run / "metrics.jsonl")]


@pytest.mark.slow
def test_two_processes_write_what_one_writes_and_stop_together_and_resume_bitwise(tmp_path):
    write_arguments(tmp_path / "arguments.jsonl")
    one, two, stopped = (tmp_path / name for name in ("one", "two", "stopped"))
    ended(start(tmp_path, one, 1, 1))
    first, second = ended(start(tmp_path, two, 2, 4))
    assert "devices: 8 x cpu in 2 processes; mesh: fsdp 8" in first and second == ""
    np.testing.assert_allclose(losses_of(two), losses_of(one), atol=1e-5)
    for name, values in adapter_of(one).items():
        np.testing.assert_allclose(adapter_of(two)[name], values, atol=1e-3)
    files = [{str(file.relative_to(run)) for file in run.rglob("*") if file.is_file()} for run in (one, two)]
    names = [{name for name in found if not name.startswith("checkpoints/")} for found in files]
    assert names[0] == names[1]

    running = start(tmp_path, stopped, 2, 4)
    waited = time.monotonic() + 300
    while time.monotonic() < waited and not (stopped / "metrics.jsonl").is_file():
        time.sleep(0.05)
    running[1].send_signal(signal.SIGTERM)
    ended(running, 130)
    steps = len(losses_of(stopped))
    assert 0 < steps < 40
    (newest,) = sorted((stopped / "checkpoints").iterdir())[-1:]
    assert json.loads((newest / "meta.json").read_text())["progress"]["step"] == steps
    ended(start(tmp_path, stopped, 2, 4))
    assert losses_of(stopped) == losses_of(two)
    for name, values in adapter_of(two).items():
        np.testing.assert_array_equal(adapter_of(stopped)[name], values)


def test_what_the_environment_says_about_processes_is_checked_before_anything_is_done():
    assert expected_processes({}) == expected_processes({"TPU_WORKER_HOSTNAMES": "localhost"}) == 1
    assert expected_processes({"TPU_WORKER_HOSTNAMES": "10.0.0.1,10.0.0.2"}) == 2
    assert expected_processes({"SLURM_STEP_NUM_TASKS": "4"}) == 4
    with pytest.raises(UserError, match=r"^JAX_NUM_PROCESSES=two in the environment is not a whole number$"):
        join_processes({"JAX_COORDINATOR_ADDRESS": "a:1", "JAX_NUM_PROCESSES": "two"})
    with pytest.raises(UserError, match=r"^missing in the environment: JAX_PROCESS_ID"):
        join_processes({"JAX_COORDINATOR_ADDRESS": "a:1", "JAX_NUM_PROCESSES": "2"})
    given = {"JAX_COORDINATOR_ADDRESS": "localhost", "JAX_NUM_PROCESSES": "2", "JAX_PROCESS_ID": "0"}
    with pytest.raises(UserError, match=r"^JAX_COORDINATOR_ADDRESS=localhost is not host:port"):
        join_processes(given)
    given |= {"JAX_COORDINATOR_ADDRESS": "localhost:8476", "SLURM_JOB_NUM_NODES": "2"}
    with pytest.raises(UserError, match=r"localhost:8476 is 127.0.0.1, which no other of the 2 hosts reaches"):
        join_processes(given)


@pytest.mark.slow
def test_a_coordinator_that_does_not_answer_is_named_after_the_time_out(tmp_path):
    write_arguments(tmp_path / "arguments.jsonl")
    with contextlib.ExitStack() as stack:
        named = {"JAX_COORDINATOR_ADDRESS": "127.0.0.1:9", "JAX_NUM_PROCESSES": "2", "JAX_PROCESS_ID": "1"}
        environment = os.environ | named | {"JAXALIGN_TIMEOUT": "3", "PYTHONPATH": str(Path(__file__).parents[2])}
        command = [sys.executable, "-m", "jaxalign.train", f"dataset.path={tmp_path / 'arguments.jsonl'}", *SETTINGS]
        child = stack.enter_context(
            subprocess.Popen(command, env=environment, stdout=-1, stderr=-1, text=True, cwd=tmp_path)
        )
        _, said = child.communicate(timeout=100)
    assert child.returncode == 2
    assert said.splitlines()[-1].startswith("error: the coordinator 127.0.0.1:9 did not answer in 3 s")
