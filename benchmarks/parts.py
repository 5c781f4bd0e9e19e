"""The parts of a benchmark: each runs in a process of its own, so that its memory and its threads are its own."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from typing import Any


def need(*packages: str) -> None:
    """End the benchmark with one line if a package of the extra `bench` is not installed."""
    missing = [name for name in packages if importlib.util.find_spec(name) is None]
    if missing:
        raise SystemExit(f"error: {' and '.join(missing)} not installed: type pip install '.[bench]' and run again")


def child(name: str, title: str, work: Path) -> dict[str, Any]:
    """Run one part of this benchmark, with the same arguments; return what it prints last, a line of JSON."""
    print(f"running: {title}", file=sys.stderr, flush=True)
    command = [sys.executable, *sys.argv, "--contender", name, "--work", str(work)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.returncode)
    return json.loads(done.stdout.splitlines()[-1])
