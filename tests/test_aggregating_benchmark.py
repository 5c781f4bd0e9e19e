"""The benchmark of adding up judged responses, at a size that is no benchmark."""

import json
import re
import subprocess
import sys
from argparse import Namespace
from pathlib import Path

import pytest
from aggregating import aggregate, prepare, report

HERE = Path(__file__).parent.parent


@pytest.mark.slow
def test_drawn_records_go_through_the_real_stage_and_the_report(tmp_path):
    command = [sys.executable, "benchmarks/aggregating.py", "--adapters", "9", "--records", "140", "--folder", tmp_path]
    environment = {"PYTHONPATH": str(HERE), "PATH": "/usr/bin:/bin", "HOME": str(tmp_path)}
    done = subprocess.run(command, cwd=HERE, env=environment, capture_output=True, text=True, timeout=600, check=True)
    assert re.fullmatch(r"aggregating=\d+\.\d memory=\d\.\d\d", done.stdout.splitlines()[-1])
    assert "beavertails, judged by probe: 10 models" in done.stderr and not list(tmp_path.glob("jaxalign-bench-*"))


def test_the_stage_and_the_report_find_what_the_adapters_training_runs_measured(tmp_path):
    asked = Namespace(adapters=3, records=70, work=tmp_path, profile=False)
    for part in (prepare, aggregate, report):
        part(asked)
    models = json.loads((tmp_path / "runs" / "all" / "summary.json").read_text())["models"]
    assert [one["measured"] == one["target"] for one in models] == [True] * 4 and models[1]["measured"]
    assert "| 120" in (tmp_path / "runs" / "report" / "tables" / "beavertails-ability.md").read_text()
