"""CREST runs that were killed, or whose files were changed."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from command_line import refused
from jobs.crest.runs_of_crest import ADAPTER, SMALL, without

from jaxalign.crest import main
from jaxalign.runs.records import read_records


@pytest.mark.parametrize(
    ("stage", "name", "asked"),
    [
        ("rationales", "generations.jsonl", "evaluate"),
        ("evaluate", "rationales.jsonl", "dpo"),
        ("preferences", "pairs.jsonl", "dpo"),
    ],
)
def test_a_finished_stages_file_that_was_changed_is_named(whole, tmp_path, capsys, stage, name, asked):
    after = ("evaluate", "sft", "preferences", "dpo") if asked == "evaluate" else ("dpo",)
    folder = without(whole, tmp_path / "run", *after)
    path = folder / "stages" / stage / name
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:-1]))
    command = [f"run.dir={folder}", *SMALL, f"stage={asked}"]
    assert f"{path} was changed since the run was finished; do it again with stage={stage}" in refused(
        main, command, capsys
    )
    path.unlink()
    assert f"{path} is missing since" in refused(main, command, capsys)


def killed(folder: Path, watched: str) -> None:
    """Run all stages in a process of its own, and kill it as soon as a file is there (a pattern, in the folder)."""
    command = [sys.executable, "-m", "jaxalign.crest", f"run.dir={folder}", *SMALL, "training.checkpoint_every=1"]
    environment = {**os.environ, "JAX_PLATFORMS": "cpu"}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while process.poll() is None and not any(folder.glob(watched)):
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert any(folder.glob(watched))


@pytest.mark.parametrize(
    ("watched", "missing"),
    [
        ("stages/seed/checkpoints/*/manifest.json", ("seed", "rationales", "evaluate", "sft", "preferences", "dpo")),
        ("stages/rationales/generations.jsonl", ("rationales", "evaluate", "sft", "preferences", "dpo")),
        ("stages/evaluate/rationales.jsonl", ("evaluate", "sft", "preferences", "dpo")),
        ("stages/sft/epochs/2", ("sft", "preferences", "dpo")),
        ("stages/preferences/pairs.jsonl", ("preferences", "dpo")),
        ("stages/dpo/metrics.jsonl", ("dpo",)),
        ("stages/dpo/checkpoints/*round-2*/manifest.json", ("dpo",)),
        ("generations.jsonl", ()),
    ],
)
def test_a_kill_at_any_moment_loses_nothing_that_changes_the_result(whole, tmp_path, watched, missing):
    folder = without(whole, tmp_path / "run", *missing)
    for name in ("generations.jsonl", "judged.jsonl", "shapes.jsonl", "rationales.jsonl", "pairs.jsonl", "table.csv"):
        (folder / name).unlink()
    killed(folder, watched)
    main([f"run.dir={folder}", *SMALL])
    for name in ("rationales.jsonl", "pairs.jsonl", "table.csv", ADAPTER):
        assert (folder / name).read_bytes() == (whole / name).read_bytes()
    steps = [
        [(one["stage"], one["step"], one["loss"]) for one in read_records(run / "stages" / "dpo" / "metrics.jsonl")]
        for run in (folder, whole)
    ]
    assert steps[0] == steps[1]
    # What is counted is counted over all processes.
    stages = [json.loads((run / "summary.json").read_text())["stages"] for run in (folder, whole)]
    assert [one.get("tokens") for one in stages[0].values()] == [one.get("tokens") for one in stages[1].values()]


def test_what_a_kill_left_of_an_adapter_half_written_is_passed_over(whole, tmp_path):
    stage = without(whole, tmp_path / "run", "preferences", "dpo") / "stages" / "sft"
    (stage / "summary.json").unlink()
    (stage / "epochs" / ".2.k7x_e1").mkdir()
    main([f"run.dir={tmp_path / 'run'}", *SMALL, "stage=sft"])
    assert (stage / ADAPTER).read_bytes() == (whole / "stages" / "sft" / ADAPTER).read_bytes()
