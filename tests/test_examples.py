"""The scripts in examples/ run, on a random model."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from child_process import Child
from runs_of_tiny import SHAPED, SHORT, write_arguments

pytestmark = pytest.mark.slow

EXAMPLES = Path(__file__).parents[1] / "examples"
TINY = ["model=tiny", "precision=float32", "training.max_steps=1"]
QUICK = ["training.questionnaire=false", "training.validate=false", "alignment.regulariser.weight=0"]


def run(tmp_path, *command, **variables):
    """Run a command in a folder of its own, with this Python as `python`; return what it printed."""
    here = Path(sys.executable).parent
    environment = os.environ | {"PATH": f"{here}:{os.environ['PATH']}"} | variables
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_python_interface_in_one_script(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    said = Child(str(EXAMPLES / "python_api.py"), ["tiny"]).printed()
    assert "the same adapter is True" in said


def test_a_sweep_trains_every_rank_and_puts_all_into_one_table_whatever_the_seed(tmp_path):
    data = f"dataset.path={write_arguments(tmp_path / 'arguments.jsonl')}"
    table = " ".join([*SHORT, "benchmark.limit=10", "benchmark.choice=false", "alignment.validation_fraction=0.02"])
    settings = [*TINY, *QUICK, *SHAPED, data, "training.seed=1"]
    run(tmp_path, str(EXAMPLES / "sweep.sh"), *settings, VALUES="power", TABLE=table)
    (folder,) = (tmp_path / "outputs").iterdir()  # and not outputs/sweep, where the runs of the default settings are
    assert folder.name.startswith("sweep-")
    summary = json.loads((folder / "table" / "summary.json").read_text())
    assert sum(row["method"] == "adapter" for row in summary["rows"]) == 2
    stored = [json.loads(file.read_text()) for file in folder.glob("power-*/adapter/adapter_config.json")]
    assert sorted(one["r"] for one in stored) == [4, 16]


def test_ones_own_data_set_is_looked_at_and_trained_on(tmp_path):
    said = run(tmp_path, str(EXAMPLES / "own_data.sh"), *TINY, *QUICK, "training.batch_size=1")
    assert "How do you" in said
    (folder,) = (tmp_path / "outputs").iterdir()  # named by a hash of the settings, so that others do not meet it
    assert folder.name.startswith("jsonl-tiny-seed0-") and (folder / "adapter").is_dir()
