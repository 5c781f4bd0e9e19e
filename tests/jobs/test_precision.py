"""precision=auto: the format that is fast here, in the run's identity, and kept when a run goes on elsewhere."""

import shutil

import pytest
import yaml
from command_line import run
from runs_of_tiny import write_arguments

from jaxalign.jobs import precision
from jaxalign.train import main

QUICK = [
    "+value=power",
    "model=tiny",
    "alignment.regulariser.weight=0",
    "training.batch_size=1",
    "training.max_steps=1",
    "lora.rank=2",
]
QUICK += ["training.questionnaire=false", "training.validate=false"]


def on(processor: str, monkeypatch) -> None:
    """Let this machine be one where this number format is fast."""
    monkeypatch.setattr("jaxalign.jobs.precision.fast_precision", lambda: (processor, "this CPU is made up"))


@pytest.mark.slow
def test_what_is_chosen_is_said_counts_and_stays_when_a_run_goes_on_elsewhere(tmp_path, monkeypatch, capsys):
    given = [f"dataset.path={write_arguments(tmp_path / 'a.jsonl')}", f"run.root={tmp_path / 'outputs'}", *QUICK]
    on("float32", monkeypatch)
    assert "precision: float32 (this CPU is made up)" in run(main, given, capsys)
    (made,) = (tmp_path / "outputs").iterdir()
    stored = yaml.safe_load((made / "config.yaml").read_text())
    assert stored["precision"] == stored["identity"]["precision"] == "float32"

    on("bfloat16", monkeypatch)
    for where in (given, [*given, f"run.dir={made}"]):
        said = run(main, where, capsys)
        assert f"precision: float32 (as {made} was begun)" in said and f"this run is done: {made}" in said
    # A format of one's own is that, and other settings are another run.
    assert "precision:" not in run(main, [*given, "precision=float32"], capsys)
    assert "precision: bfloat16 (this CPU is made up)" in run(main, [*given, "lora.alpha=3", "inspect=1"], capsys)
    assert len(list((tmp_path / "outputs").iterdir())) == 1

    # A new machine has only the mirror to tell it.
    (tmp_path / "mounted").mkdir()
    mirrored = [*given, f"run.mirror={tmp_path / 'mounted'}"]
    assert "this run is done" in run(main, mirrored, capsys)
    shutil.rmtree(tmp_path / "outputs")
    precision._mirrored_configs.cache_clear()
    said = run(main, mirrored, capsys)
    assert f"precision: float32 (as {tmp_path / 'mounted' / made.name} was begun)" in said
    assert f"this run is done: {made}" in said
