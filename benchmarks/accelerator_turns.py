"""Contenders of accelerator.py that start together and are timed one by one, for a card that is lent for minutes.

Each process imports its packages while the others do. Then as many as the memory of the card holds warm up together,
and one after another has the card to itself. Processes tell each other with empty files in a folder.
"""

import contextlib
import json
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

FOLDER, NAME = "JAXALIGN_BENCH_TURNS", "JAXALIGN_BENCH_NAME"
IMPORTED, WARM = "imported", "warm"
GIGABYTES = {
    **{"135M-sft-jaxalign": 6, "135M-sft-peft": 27, "135M-sft-compiled": 27, "135M-dpo-jaxalign": 5},
    **{"135M-dpo-trl": 13, "135M-dpo-precomputed": 13, "135M-sampling-jaxalign": 2, "135M-sampling-transformers": 3},
    **{"135M-scoring-jaxalign": 2, "135M-scoring-transformers": 2, "8B-sft-jaxalign": 56, "8B-dpo-jaxalign": 44},
    **{"8B-sampling-jaxalign": 22, "8B-sampling-transformers": 32, "8B-scoring-jaxalign": 20},
    "8B-scoring-transformers": 26,
}
"""The memory that each contender needs at most, measured on an H200 and rounded up; others take all that there is."""


def wait_for_turn(step: str) -> None:
    """Say that this process has come to a step, and wait until it may go on: at once if it was started alone."""
    if folder := os.environ.get(FOLDER):
        name = os.environ[NAME]
        Path(folder, f"{step}-{name}").touch()
        while not Path(folder, f"after-{step}-{name}").exists():
            time.sleep(0.02)


def in_turns(parts: Sequence[str], seconds: float, folder: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield (part, its result) of those contenders (`size-task-name`) that are done within a number of seconds.

    A result is {"failed": reason} where a process failed, or was not done in time.
    """
    end = time.monotonic() + seconds
    running: dict[str, subprocess.Popen] = {}

    def wait(step: str, names: Sequence[str], most: float) -> None:
        until = min(time.monotonic() + most, end)
        while time.monotonic() < until and not all(at(step, name) or _ended(running[name]) for name in names):
            time.sleep(0.02)

    def at(step: str, name: str) -> bool:
        return Path(folder, f"{step}-{name}").exists()

    def release(step: str, name: str) -> None:
        Path(folder, f"after-{step}-{name}").touch()

    try:
        for part in parts:  # one by one, so that what has started ends if the next one cannot
            running[part] = _started(part, folder)
        for together in waves(parts, _gigabytes_of_card()):
            for part in together:
                release(IMPORTED, part)
            if len(together) == 1:  # nobody waits for it
                release(WARM, together[0])
            else:
                wait(WARM, together, seconds / 3)
            wait(IMPORTED, parts, seconds / 2)
            late = {part for part in together if not at(WARM, part) and not _ended(running[part])}
            for part in late:  # what is timed has the card and the processor to itself
                _send(running[part], signal.SIGSTOP)
            for part in sorted(together, key=late.__contains__):
                _send(running[part], signal.SIGCONT)
                release(WARM, part)
                yield part, _result(running[part], max(end - time.monotonic(), 0), folder / f"log-{part}")
    finally:
        for process in running.values():
            _send(process, signal.SIGKILL)
            process.communicate()


def waves(parts: Sequence[str], card: float) -> list[list[str]]:
    """Return the contenders that warm up together, so that a card of so many gigabytes holds them; small ones first."""
    need = {part: 0 if part.startswith("tiny") else GIGABYTES.get(part, math.inf) for part in parts}
    found, used = [[]], 0.0
    for part in sorted(parts, key=lambda part: need[part]):
        if found[-1] and used + need[part] > 0.9 * card:
            found.append([])
            used = 0.0
        found[-1].append(part)
        used += need[part]
    return found


def _gigabytes_of_card() -> float:
    """Return the memory of the first NVIDIA card; infinity where none says it, as on a computer without one."""
    try:
        command = ["nvidia-smi", "--query-gpu=memory.total", "--format=csv,noheader,nounits"]
        printed = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
        return float(printed.splitlines()[0]) * 2**20 / 1e9
    except (OSError, subprocess.CalledProcessError, ValueError, IndexError):
        return math.inf


def _started(part: str, folder: Path) -> subprocess.Popen:
    command = [sys.executable, *sys.argv, "--contender", part, "--work", str(folder / f"work-{part}")]
    (folder / f"work-{part}").mkdir()
    environment = os.environ | {FOLDER: str(folder), NAME: part, "XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
    with open(folder / f"log-{part}", "w", encoding="utf-8") as log:
        kept = {"stdout": subprocess.PIPE, "stderr": log, "text": True}
        return subprocess.Popen(command, env=environment, start_new_session=True, **kept)


def _send(process: subprocess.Popen, number: int) -> None:
    """Send a signal to a contender and to what it has started; nothing once the contender itself has ended."""
    if not _ended(process):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)


def _ended(process: subprocess.Popen) -> bool:
    return process.poll() is not None


def _result(process: subprocess.Popen, seconds: float, log: Path) -> dict[str, Any]:
    try:
        printed, _ = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        return {"failed": "not done in time"}
    if process.returncode:
        lines = log.read_text(encoding="utf-8").split("\n")
        return {"failed": f"failed: {next((line for line in reversed(lines) if line), '')[:80]}"}
    return json.loads(printed.splitlines()[-1])
