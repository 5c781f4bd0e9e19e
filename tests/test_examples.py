"""The scripts in examples/ run, on a random model."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

EXAMPLES = Path(__file__).parents[1] / "examples"
TINY = ["model=tiny", "precision=float32", "training.max_steps=1", "training.batch_size=1"]
QUICK = ["training.questionnaire=false", "training.validate=false"]


def run(tmp_path, *command):
    """Run a command in a folder of its own, with this Python as `python`; return what it printed."""
    here = Path(sys.executable).parent
    environment = os.environ | {"PATH": f"{here}:{os.environ['PATH']}"}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_python_interface_in_one_script(tmp_path):
    said = run(tmp_path, sys.executable, str(EXAMPLES / "python_api.py"), "tiny")
    assert "the same adapter is True" in said


def test_a_sweep_trains_every_combination_and_puts_all_into_one_table(tmp_path):
    run(tmp_path, str(EXAMPLES / "sweep.sh"), *TINY, *QUICK, "lora.rank=2", "dataset.limit=40")
    summary = json.loads((tmp_path / "outputs" / "sweep" / "table" / "summary.json").read_text())
    assert [row["name"] for row in summary["rows"] if row["method"] == "adapter"] == [
        "benevolence",
        "power",
    ]


def test_ones_own_data_set_is_looked_at_and_trained_on(tmp_path):
    said = run(tmp_path, str(EXAMPLES / "own_data.sh"), *TINY, *QUICK)
    assert "How do you" in said and (tmp_path / "outputs" / "recipes" / "adapter").is_dir()
