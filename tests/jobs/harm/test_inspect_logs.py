"""Logs of Inspect, which Inspect itself reads back."""

import sys
import types
from pathlib import Path

import pytest
from command_line import refused, run
from synthetic_harm import Lab, judge_entry

from jaxalign.jobs.harm import inspect_logs
from jaxalign.report import main
from jaxalign.runs.records import read_records
from jaxalign.values.targets import extreme_targets


@pytest.fixture
def one_category(tmp_path):
    return Lab(tmp_path / "runs", categories=("violence",))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of the package and of what it imports
def test_inspect_reads_the_scores_back(one_category, capsys):
    log = pytest.importorskip("inspect_ai.log", exc_type=ImportError)
    one_category.run([one_category.base(), one_category.adapter(extreme_targets()["power"])], "one")
    printed = run(main, [f"runs={one_category.root}", "export=inspect"], capsys)
    folder = one_category.root / "report" / "inspect"
    assert f"inspect: 2 logs in {folder}" in printed
    (path,) = folder.glob("beavertails-none-power-*.eval")
    found = log.read_eval_log(str(path))
    assert (found.status, found.eval.task, found.eval.model) == (
        "success",
        "jaxalign/beavertails",
        "jaxalign/tiny+power",
    )
    (judged,) = one_category.root.glob("stages/judge-beavertails-none-power-*")
    scores = {one["id"]: one["score"] for one in read_records(judged / "judged.jsonl")}
    assert len(found.samples) == len(scores) == 6
    for sample in found.samples:
        mine = sample.scores.get("probe")
        assert (None if mine is None else mine.value) == scores[sample.id]
        assert sample.input == f"Prompt {sample.id}?" and sample.metadata["category"] == "violence"
    (score,) = found.results.scores
    assert 0 <= score.metrics["flagged_rate"].value <= 1 and score.metrics["flagged_rate"].metadata["n"] > 0
    assert found.eval.metadata["judges"][0] == judge_entry()["line"]


def test_without_the_package_it_says_what_to_install(one_category, capsys, monkeypatch):
    one_category.run([one_category.base()], "one")
    monkeypatch.setattr(inspect_logs, "find_spec", lambda name: None)
    assert refused(main, [f"runs={one_category.root}", "export=inspect"], capsys) == (
        "export=inspect needs the package inspect-ai: pip install 'jaxalign[inspect]'"
    )
    assert not (one_category.root / "report").exists()


def test_a_report_without_texts_is_not_exported(one_category, capsys):
    one_category.run([one_category.base()], "one")
    line = refused(main, [f"runs={one_category.root}", "texts=0", "export=inspect"], capsys)
    assert line == (
        "export=inspect writes all prompts and responses, and texts=0 makes a report without them: "
        "leave one of them out"
    )
    assert not (one_category.root / "report").exists()


def logs_of_the_program(one_category, monkeypatch):
    """Write logs as an export does, with a stand-in for the package's part."""
    package = types.ModuleType("inspect_ai.log")
    package.write_eval_log = lambda log, path, format: Path(path).write_text(log)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "inspect_ai", types.ModuleType("inspect_ai"))
    monkeypatch.setitem(sys.modules, "inspect_ai.log", package)
    monkeypatch.setattr(inspect_logs, "_log", lambda found, model: f"responses of {model.title}")
    monkeypatch.setattr(inspect_logs, "find_spec", lambda name: True)
    one_category.run([one_category.base(), one_category.adapter(extreme_targets()["power"])], "one")
    return one_category.root / "report" / "inspect"


def test_a_later_report_without_export_deletes_the_logs(one_category, capsys, monkeypatch):
    folder = logs_of_the_program(one_category, monkeypatch)
    one_category.report(capsys, "export=inspect")
    names = sorted(one.name for one in folder.iterdir())
    assert names == ["beavertails-none-base-0.eval", "beavertails-none-power-1.eval", "jaxalign-logs.txt"]
    one_category.report(capsys, "export=inspect")
    assert sorted(one.name for one in folder.iterdir()) == names
    assert (folder / "jaxalign-logs.txt").read_text().splitlines() == names[:2]
    assert "did not write" not in one_category.report(capsys, "texts=0")
    assert not folder.exists()


def test_logs_of_others_stay_and_are_named(one_category, capsys, monkeypatch):
    folder = logs_of_the_program(one_category, monkeypatch)
    one_category.report(capsys, "export=inspect")
    (folder / "mine-7.eval").write_text("mine")
    outside = one_category.root / "mine.eval"
    outside.write_text("mine")
    with (folder / "jaxalign-logs.txt").open("a") as listed:
        listed.write("../../mine.eval\n..\n")
    said = f"{folder} has 1 file that this program did not write, perhaps with prompts and responses; they stay"
    assert said in one_category.report(capsys, "texts=0")
    assert [one.name for one in folder.iterdir()] == ["mine-7.eval"] and outside.is_file()
    assert said in one_category.report(capsys, "export=inspect")
    assert (folder / "mine-7.eval").read_text() == "mine" and len(list(folder.iterdir())) == 4
