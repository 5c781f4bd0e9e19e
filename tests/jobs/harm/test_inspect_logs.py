"""Logs of Inspect, which Inspect itself reads back."""

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
    printed = run(main, [f"runs={one_category.root}", "texts=0", "export=inspect"], capsys)
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
