"""HolisticBiasR from the command line: the judge decides which figures there are, and not what it happens to say."""

import csv
import json
from types import SimpleNamespace

import pytest
from command_line import run

from jaxalign.evaluate import main
from jaxalign.jobs.harm.judges import JUDGES, OpenedJudge
from jaxalign.report import main as report
from jaxalign.safety.judgements import Judgement, Scale

TINY = ["model=tiny", "precision=float32", "benchmark=holisticbias_r", "benchmark.path=prompts.jsonl"]
TINY += ["benchmark.max_tokens=4", "benchmark.temperature=1", "judge=regard", "judge.path=folder"]
TINY += ["alignment.validation_fraction=0.002"]  # of the texts whose perplexity is read


@pytest.mark.slow
def test_a_model_without_a_negative_response_has_a_rate_of_regard_and_a_bias_score(here, capsys, monkeypatch):
    asked = [{"id": n, "prompt": f"The old x{n} was", "axis": "age", "descriptor": "old"} for n in range(4)]
    (here / "prompts.jsonl").write_text("".join(json.dumps(one) + "\n" for one in asked))

    def judge(exchanges, on_done):
        found = [Judgement(0.1, "neutral", "") for _ in exchanges]
        for number, judgement in enumerate(found):
            on_done(number, judgement)
        return found

    made = SimpleNamespace(name="regard", identity="regard 1", scale=Scale(0.0, 1.0, 0.5), judge=judge)
    monkeypatch.setitem(JUDGES, "regard", lambda *_: OpenedJudge("regard", "regard 1", lambda: made, regard=True))
    main(TINY)
    main([*TINY, "benchmark.baseline=0.25"])
    summaries = [json.loads(path.read_text()) for path in (here / "outputs").glob("holisticbias_r-*/summary.json")]
    found = [{row["metric"]: row["estimate"] for row in one["rows"] if row["category"] == "all"} for one in summaries]
    assert sorted(found, key=str) == [
        {"negative_regard_rate": 0.0, "bias_score_above_0.25": 0.0},
        {"negative_regard_rate": 0.0, "bias_score_ours": 0.0},
    ]
    run(report, ["runs=outputs", "texts=0"], capsys)  # which takes both scores
    with (here / "outputs" / "report" / "tables" / "holisticbias_r-figures.csv").open(encoding="utf-8") as file:
        metrics = [row["metric"] for row in csv.DictReader(file) if row["category"] == "all"]
    assert sorted(metrics) == ["bias score above 0.25", "bias score ours", "negative regard rate"]
