"""What stage=label and stage=fit_judge read and write: each fault is one line before the work."""

import json
import shutil

import pytest
from command_line import refused
from synthetic_harm import Lab

from jaxalign.errors import UserError
from jaxalign.evaluate import main
from jaxalign.jobs.harm.labels import read_labels
from jaxalign.safety.judges.probe import ProbeReader


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A finished run with one label."""
    monkeypatch.chdir(tmp_path)
    lab = Lab(tmp_path / "runs", prompts=4)
    made = lab.run([lab.base()], "one")
    (judged,) = (lab.root / "stages").glob("judge-*/judged.jsonl")
    spoken = next(line for line in map(json.loads, judged.read_text().splitlines()) if line["state"] == "answered")
    label(made, {"key": spoken["key"], "label": "fine", "person": "me"})
    return made


def label(folder, *records):
    (folder / "labels.jsonl").write_text("".join(json.dumps(one) + "\n" for one in records))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda models: models.__setitem__(0, 1), "'models 1' is missing or damaged"),
        (lambda models: models[0].pop("generate"), "models 1: 'generate' is missing or damaged"),
        (lambda models: models[0].update(judge=3), "models 1: 'judge' is missing or damaged"),
    ],
)
def test_a_summary_whose_models_are_damaged_is_named(folder, capsys, change, said):
    path = folder / "summary.json"
    summary = json.loads(path.read_text())
    change(summary["models"])
    path.write_text(json.dumps(summary))
    line = refused(main, ["stage=fit_judge", f"judge.labels={folder}"], capsys)
    assert line.startswith(f"{path} is damaged ({said});") and "again, which writes it anew" in line


def test_a_label_that_does_not_exist_is_named_and_not_taken_for_harmless(folder):
    label(folder, {"key": "x", "label": "harmfull", "person": "me"})
    with pytest.raises(UserError, match=r"labels.jsonl, line 1: no label is called 'harmfull'; did you mean 'harmful'"):
        read_labels(str(folder))


def test_labels_whose_responses_are_lost_in_part_are_counted_and_the_others_are_used(folder):
    mine = json.loads((folder / "labels.jsonl").read_text())
    label(folder, mine, *({"key": key, "label": "harmful", "person": "me"} for key in ("x", "y")))
    said = []
    assert [one.label for one in read_labels(str(folder), log=said.append)] == ["fine"]
    (line,) = said
    assert line.startswith(f"{folder} has labels, and 2 of its 3 labelled responses are not there (they stand in")
    assert line.endswith("; used without them: 1 label")


def test_labels_whose_responses_are_lost_are_not_taken_for_none(folder, capsys):
    assert len(read_labels(str(folder))) == 1
    shutil.rmtree(folder.parent / "stages")
    line = refused(main, ["stage=fit_judge", f"judge.labels={folder}"], capsys)
    assert line.startswith(f"{folder} has labels, and its responses are not there")


@pytest.mark.parametrize("place", ["file", "file/inside", "nowhere"])
def test_a_place_for_a_probe_that_cannot_be_written_is_refused_before_the_work(tmp_path, capsys, monkeypatch, place):
    monkeypatch.setattr(ProbeReader, "read", lambda *_: pytest.fail("responses were read first"))
    (tmp_path / "file").write_text("mine")
    (tmp_path / "nowhere").symlink_to(tmp_path / "none" / "at all")
    line = refused(main, ["stage=fit_judge", "judge.model=tiny", f"run.dir={tmp_path / place}"], capsys)
    assert line.startswith(f"cannot write to {tmp_path / place}: ") and (tmp_path / "file").read_text() == "mine"


def test_labels_that_are_not_there_are_not_called_a_data_set(tmp_path, capsys):
    line = refused(main, ["stage=fit_judge", f"run.dir={tmp_path}", f"judge.labels={tmp_path}/none.csv"], capsys)
    assert line.startswith(f"{tmp_path}/none.csv is not a file (it does not exist): give a .json, .jsonl, .csv")
