"""Hydra's launcher for Slurm runs a multirun of ours, unchanged. Stand-ins for Slurm's commands run the jobs here."""

import json
import os
import stat
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from runs_of_tiny import QUIET, write_arguments

ROOT = Path(__file__).parents[2]

SBATCH = """
script=${@: -1}
cp "$script" "$FAKES/script"
(
  for task in 0 1; do
    SLURM_JOB_ID=$((7 + task)) SLURM_ARRAY_JOB_ID=7 SLURM_ARRAY_TASK_ID=$task SLURM_JOB_NODELIST=here \\
      SLURM_JOB_NUM_NODES=1 bash "$FAKES/script"
  done
  touch "$FAKES/ended"
) > "$FAKES/jobs.log" 2>&1 &
echo "Submitted batch job 7"
"""
"""Runs the tasks of an array one after the other, once it has answered, for the launcher writes their files then."""

SRUN = """
while [[ $1 == -* ]]; do [[ $1 == --output || $1 == --error ]] && shift; shift; done
SLURM_NTASKS=1 SLURM_PROCID=0 SLURM_LOCALID=0 SLURM_NODEID=0 SLURM_STEP_NUM_TASKS=1 exec "$@"
"""

SACCT = """
[ -e "$FAKES/ended" ] && state=COMPLETED || state=RUNNING
printf '%s\\\\n' 'JobID|State|NodeList' "7_0|$state|here" "7_1|$state|here"
"""

FAKES = {"sbatch": SBATCH, "srun": SRUN, "sacct": SACCT, "scontrol": "echo here\n"}


@pytest.mark.slow
@pytest.mark.skipif(find_spec("submitit") is None, reason="needs the extra slurm")
def test_a_multirun_becomes_an_array_of_slurm_jobs_and_each_keeps_its_run(tmp_path):
    for name, body in FAKES.items():
        path = tmp_path / "bin" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"#!/usr/bin/env bash\n{body}")
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
    data = write_arguments(tmp_path / "arguments.jsonl")
    typed = ["-m", "+value=power,benevolence", "hydra/launcher=submitit_slurm", "hydra.launcher.gpus_per_node=1"]
    typed += ["hydra.launcher.timeout_min=600", "hydra.sweep.dir=sweep"]
    typed += ["hydra.launcher.submitit_folder=sweep/submitit", f"dataset.path={data}", "model=tiny"]
    typed += ["training.max_steps=1", "precision=float32", *QUIET]
    environment = os.environ | {
        "PATH": f"{tmp_path}/bin:{os.environ['PATH']}",
        "FAKES": str(tmp_path),
        "PYTHONPATH": os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]),
    }
    here = tmp_path / "here"
    here.mkdir()
    command = [sys.executable, "-m", "jaxalign.train", *typed]
    done = subprocess.run(command, env=environment, cwd=here, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr + (tmp_path / "jobs.log").read_text()
    script = (tmp_path / "script").read_text()
    assert "#SBATCH --array=0-1" in script and "--signal=USR2@" in script and "--time=600" in script
    runs = sorted((here / "outputs").iterdir())
    assert [run.name.split("-")[0] for run in runs] == ["benevolence", "power"]
    assert all(json.loads((run / "summary.json").read_text())["value"] == run.name.split("-")[0] for run in runs)
    assert sorted(path.name for path in here.iterdir()) == ["outputs", "sweep"]  # nothing else is left in the folder
