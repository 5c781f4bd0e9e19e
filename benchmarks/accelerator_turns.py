"""Contenders of accelerator.py that start together and are timed one by one, for a card that is lent for minutes.

Each process imports its packages while the others do, those of the small model also warm up together, and then one
after another has the card to itself. Processes tell each other with empty files in a folder.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

FOLDER, NAME = "JAXALIGN_BENCH_TURNS", "JAXALIGN_BENCH_NAME"
IMPORTED, WARM = "imported", "warm"
LARGE = "8B"
"""Models of this size have no room beside others, so they warm up in their own turn."""


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
    running = {part: _started(part, folder) for part in parts}

    def wait(step: str, names: Sequence[str], most: float) -> None:
        until = min(time.monotonic() + most, end)
        while time.monotonic() < until and not all(at(step, name) or _ended(running[name]) for name in names):
            time.sleep(0.02)

    def at(step: str, name: str) -> bool:
        return Path(folder, f"{step}-{name}").exists()

    def release(step: str, name: str) -> None:
        Path(folder, f"after-{step}-{name}").touch()

    wait(IMPORTED, parts, seconds / 2)
    small = [part for part in parts if not part.startswith(LARGE)]
    for part in small:
        release(IMPORTED, part)
    wait(WARM, small, seconds / 4)
    try:
        late = {part for part in small if not at(WARM, part) and not _ended(running[part])}
        for part in sorted(parts, key=lambda part: (part in late, part.startswith(LARGE))):
            for step in (IMPORTED, WARM):
                release(step, part)
            yield part, _result(running[part], max(end - time.monotonic(), 0), folder / f"log-{part}")
    finally:
        for process in running.values():
            process.kill()
            process.communicate()


def _started(part: str, folder: Path) -> subprocess.Popen:
    command = [sys.executable, *sys.argv, "--contender", part, "--work", str(folder / f"work-{part}")]
    (folder / f"work-{part}").mkdir()
    environment = os.environ | {FOLDER: str(folder), NAME: part, "XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
    with open(folder / f"log-{part}", "w", encoding="utf-8") as log:
        return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=log, text=True)


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
