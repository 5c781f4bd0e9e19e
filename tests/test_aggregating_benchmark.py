"""The benchmark of adding up judged responses, at a size that is no benchmark."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent.parent


@pytest.mark.slow
def test_drawn_records_go_through_the_real_stage_and_the_report(tmp_path):
    command = [sys.executable, "benchmarks/aggregating.py", "--adapters", "9", "--records", "140", "--folder", tmp_path]
    environment = {"PYTHONPATH": str(HERE), "PATH": "/usr/bin:/bin", "HOME": str(tmp_path)}
    done = subprocess.run(command, cwd=HERE, env=environment, capture_output=True, text=True, timeout=600, check=True)
    assert re.fullmatch(r"aggregating=\d+\.\d memory=\d\.\d\d", done.stdout.splitlines()[-1])
    assert "beavertails, judged by probe: 10 models" in done.stderr and not list(tmp_path.glob("jaxalign-bench-*"))
