"""What version 0.1 left beside the runs of this one."""

import pytest
from command_line import refused, run
from jobs.crest.runs_of_crest import SMALL

from jaxalign.crest import main


def write_older(folder):
    """Write a finished run as version 0.1 left it: without the format of its directory."""
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text("identity: {seed: 0}\n")
    (folder / "summary.json").write_text("{}")
    return folder


@pytest.mark.slow
def test_an_older_run_is_named_and_left_as_it_is(tmp_path, capsys):
    older = write_older(tmp_path / "crest-puzzles-tiny-seed0-0123abcd")
    said = run(main, [f"run.root={tmp_path}", *SMALL, "stage=seed"], capsys)
    assert f"made by another version of jaxalign, and left as it is: {older}\nrun directory: " in said
    assert {path.name for path in older.iterdir()} == {"config.yaml", "summary.json"}


def test_an_older_stage_is_not_taken_for_the_input_of_a_later_one(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("jaxalign.pretrained.sources.ModelFiles.load", lambda *_: 1 / 0)  # the weights are not read
    write_older(tmp_path / "stages" / "seed-puzzles-tiny-0123abcd")
    line = refused(main, [f"run.root={tmp_path}", *SMALL, "stage=rationales"], capsys)
    assert "seed-puzzles-tiny-* was made by another version of jaxalign: run the same command with stage=seed" in line
