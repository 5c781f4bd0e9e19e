"""The survey job, and a training towards a target that it made."""

import csv
import json

import pytest
from command_line import refused, run
from runs_of_tiny import train
from survey_file import forty_people

from jaxalign.survey import main
from jaxalign.train import main as training
from jaxalign.values.schwartz import VALUES
from jaxalign.values.targets import read_target

pytestmark = pytest.mark.slow


@pytest.fixture
def survey(tmp_path):
    return forty_people(tmp_path / "s.csv")


def test_the_command_builds_140_targets_that_a_training_takes(survey, tmp_path, capsys):
    table = tmp_path / "table"
    printed = run(main, [f"path={survey}", f"out={table}"], capsys)
    assert "140 targets" in printed and "next:" in printed
    with (table / "targets.csv").open() as file:
        rows = {row["name"]: row for row in csv.DictReader(file)}
    assert len(rows) == 140
    about = json.loads((table / "survey.json").read_text())
    assert (about["coding"], about["rows"], about["kept"]) == ("reversed", 40, 40)
    folder = tmp_path / "runs"
    change = ["value.anchor=power", "value.rank=3", f"value.table={table}"]
    train(folder, "survey/close", *change, f"run.dir={folder / 'run'}")
    summary = json.loads((folder / "run" / "summary.json").read_text())
    assert summary["value"] == "power_close_3"
    assert summary["target"] == {value: pytest.approx(float(rows["power_close_3"][value])) for value in VALUES}


def test_bad_input_is_one_line(survey, tmp_path, capsys):
    table, raw = tmp_path / "table", tmp_path / "raw"
    assert "missing: path, out" in refused(main, [], capsys)
    assert "is not a file" in refused(main, ["path=none.csv", f"out={table}"], capsys)
    assert "lower neighbours=50" in refused(main, [f"path={survey}", f"out={table}", "neighbours=50"], capsys)
    assert "holds other files" in refused(main, [f"path={survey}", f"out={tmp_path}"], capsys)
    table.mkdir()
    (table / ".targets.csv.x7.unfinished").write_text("half")  # of a killed process
    close = ["+value=survey/close", f"value.table={table}", "model=tiny", "alignment.regulariser.weight=0"]
    assert "is no table of targets: make one with" in refused(
        training, [*close, "value.anchor=power", "value.rank=1"], capsys
    )
    main([f"path={survey}", f"out={table}"])
    main([f"path={survey}", f"out={raw}", "coding=raw"])
    assert "did you mean" in refused(training, [*close, "value.anchor=powr", "value.rank=1"], capsys)
    assert "has the ranks 1 to 10" in refused(training, [*close, "value.anchor=power", "value.rank=11"], capsys)
    assert "missing: value.anchor, value.rank" in refused(training, close, capsys)
    chosen = ["value.anchor=power", "value.rank=1"]
    assert "has coding=raw" in refused(training, [*close, *chosen, f"value.table={raw}"], capsys)
    assert "has coding=reversed" in refused(training, [*close, *chosen, "released.raw_coding=true"], capsys)
    assert read_target(raw, "power", 1)[0] == "power_close_1_raw"
