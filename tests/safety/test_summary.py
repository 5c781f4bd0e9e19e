"""The figures of a benchmark of harm, and the lines under their table."""

import pytest
from judged_rows import judged_table

from jaxalign.analysis.corrected_rates import JudgeError
from jaxalign.safety.calibration import calibrate
from jaxalign.safety.judged import JudgedRow
from jaxalign.safety.judgements import Judgement, Scale
from jaxalign.safety.labelled import LabelledResponse
from jaxalign.safety.metrics import refusal_rate, state_shares
from jaxalign.safety.states import shown_shares
from jaxalign.safety.summary import (
    DROP_HEADS,
    drop_cells,
    harm_drops,
    harm_rows,
    judge_errors,
    rows_as_csv,
    table_cells,
    with_labels,
)
from jaxalign.safety.summary_lines import table_lines, tables_as_markdown

KNOWN = JudgeError(80, 20, 90, 10)
THRESHOLD = "(a judge's errors are counted at its threshold of harm alone)"


@pytest.mark.parametrize(
    ("metrics", "error", "left"),
    [
        (["flagged_rate", "harmfulness_score"], KNOWN, f"harmfulness score, drop {THRESHOLD}"),
        (["refusal_rate"], KNOWN, "refusal rate (no labels say how often its judge errs)"),
        (["flagged_rate"], None, "flagged rate by probe (no labels say how often its judge errs)"),
        (["toxicity_probability"], KNOWN, f"toxicity probability {THRESHOLD}"),
        (["flagged_rate"], KNOWN, None),
    ],
)
def test_what_stays_uncorrected_is_named_with_the_reason(metrics, error, left):
    table = judged_table([JudgedRow(f"p{n}", "malware", "", 0, Judgement(0.9, None, ""), "answered") for n in range(9)])
    rows = [{**row, "judge": "probe"} for row in harm_rows(table, metrics, Scale(0, 1, 0.5), error=error)]
    drops = [{"metric": "drop", "judge": "probe"}] if "harmfulness_score" in metrics else []
    summary = {"models": [], "judges": [], "mitigation": {"left_aside": []}, "rows": rows, "drops": drops}
    assert table_lines({**summary, "corrected": False}) == []
    lines = [] if left is None else [f"not corrected for the judge's errors: {left}"]
    assert table_lines({**summary, "corrected": True}) == lines


def test_a_refusal_rate_is_corrected_for_the_errors_of_the_judge_of_refusals_alone():
    rows = [response(n, "refused" if n < 30 else "answered") for n in range(100)]
    harm, refusals = JudgeError(80, 20, 90, 10), JudgeError(90, 10, 160, 40)
    found = harm_rows(
        judged_table(rows), ["refusal_rate", "flagged_rate"], Scale(0, 1, 0.5), error=harm, refusal_error=refusals
    )
    figures = {row["metric"]: row for row in found if row["category"] == "all"}
    raw, corrected = figures["refusal_rate"], figures["refusal_rate_corrected"]
    # 0.3 of the responses seem to refuse, by a judge with sensitivity 0.9 and specificity 0.8.
    assert raw["estimate"] == pytest.approx(0.3) and corrected["estimate"] == pytest.approx((0.3 + 0.8 - 1) / 0.7)
    assert corrected["high"] - corrected["low"] > raw["high"] - raw["low"] and corrected["n"] == 100
    assert figures["flagged_rate_corrected"]["estimate"] == 0  # none is flagged, and the judge accuses 10 % wrongly
    summary = {"models": [], "judges": [], "mitigation": {"left_aside": []}, "drops": [], "corrected": True}
    assert table_lines({**summary, "rows": [{**row, "judge": "probe"} for row in found]}) == []


def test_the_names_of_models_are_text_in_the_tables_in_markdown():
    table = judged_table([JudgedRow(f"p{n}", "malware", "", 0, Judgement(0.9, None, ""), "answered") for n in range(9)])
    told = {"model": "[a](http://b) <i>|", "method": "adapter", "mitigation": "none", "judge": "probe"}
    rows = [{**row, **told} for row in harm_rows(table, ["flagged_rate"], Scale(0, 1, 0.5))]
    summary = {"benchmark": {"name": "starter_probes"}, "model": {"name": "tiny"}, "models": [], "judges": []}
    mitigation = {"name": "none", "left_aside": []}
    text = tables_as_markdown({**summary, "mitigation": mitigation, "rows": rows, "drops": []})
    assert r"| \[a](http\://b) \<i>\| |" in text


def test_whatever_stands_around_the_tables_in_markdown_is_text_too():
    states = {"answered": 2}
    summary = {
        "benchmark": {"name": "starter_probes"},
        "model": {"name": "<script>*b*"},
        "models": [{"model": "# [m](http://b)", "method": "adapter", "states": states, "perplexity": 3.0}],
        "judges": [{"judge": "x", "line": "judge: x (![j](http://b))", "about": "harm", "kappa": {"estimate": 0.5}}],
        "rows": [{"model": "m", "metric": "bias", "n": 2, "failing": [["age", "<i>old"]]}],
        "second_judges": [{"judges": "`k`", "models": 1, "kappa": {"estimate": None, "reason": "x", "n": 0}}],
        "drops": [],
        "mitigation": {"name": "none", "left_aside": ["**all**"]},
    }
    text = tables_as_markdown({**summary, "rows": []})
    for shown in (
        *(r"# starter_probes: \<script>\*b\*, mitigation none", r"\# \[m](http\://b): 2 responses"),
        *(r"(!\[j](http\://b))", r"\`k\`", r"\*\*all\*\*"),
    ):
        assert shown in text
    (line,) = (one for one in table_lines(summary) if "groups fail" in one)
    assert "<i>old" in line  # the terminal shows it as it is


def response(number, state):
    judgement = None if state == "blank" else Judgement(0.1, None, "")
    return JudgedRow(f"p{number}", "malware", "", 0, judgement, state)


def test_the_noise_of_sampling_stands_under_the_table_where_prompts_have_several_samples():
    models = [
        {"model": name, "method": "base", "scale": None, "states": {"answered": 9}, "sampling_noise": noise}
        for name, noise in (("base", {"probe": 0.0123, "toxicity_linear": None}), ("power", {"probe": 0.02}))
    ]
    summary = {"models": models, "judges": [], "mitigation": {"left_aside": []}, "rows": [], "drops": []}
    begin = "noise of the mean score by"
    said = [line for line in table_lines(summary) if line.startswith(begin)]
    told = "if the samples of a model were drawn again: base 0.012, power 0.020 (standard deviations)"
    assert said == [f"{begin} probe, {told}"]


def test_the_share_of_refusals_in_a_table_is_the_refusal_rate():
    states = ["blank"] * 4 + ["repetitive"] * 2 + ["refused"] * 1 + ["answered"] * 3 + ["not judged"] * 2
    table = judged_table([response(number, state) for number, state in enumerate(states)])
    shown = shown_shares(state_shares(table))
    assert shown["refused"] == pytest.approx(refusal_rate(table, Scale(0, 1, 0.5)).estimate) == pytest.approx(1 / 4)
    assert shown["answered"] == pytest.approx(3 / 4) and shown["blank"] == pytest.approx(4 / 12)
    rows = [
        {**row, "model": "base", "method": "base", "mitigation": "none", "judge": "probe"}
        for row in harm_rows(table, ["flagged_rate"], Scale(0, 1, 0.5))
    ]
    assert table_cells(rows)[0][-2] == "25 %" and ",0.25," in rows_as_csv(rows)
    silent = judged_table([response(number, "blank") for number in range(3)])
    nothing = shown_shares(state_shares(silent))
    assert nothing["blank"] == 1 and nothing["refused"] is nothing["answered"] is None


def labelled(harmful, scores):
    rows = [LabelledResponse(f"r{n}", "malware", f"q{n}", "-", "harmful" if n < harmful else "fine") for n in range(20)]
    return calibrate("probe", Scale(0, 1, 0.5), rows, [Judgement(score, None, "") for score in scores])


def test_with_labels_of_the_run_all_figures_of_a_judge_are_of_them():
    shipped = labelled(10, [0.9] * 10 + [0.1] * 10)
    told = with_labels({"judge": "probe", "kappa": None, "area": None, "error": None, "labels": "shipped"}, shipped)
    mine = labelled(8, [0.9] * 6 + [0.1] * 2 + [0.9] * 3 + [0.1] * 9)
    now = with_labels(told, mine)
    assert mine.area is not None and mine.agreement is not None
    assert judge_errors(now["error"]) == mine.error == JudgeError(found=6, overlooked=2, passed=9, accused=3)
    assert now["area"]["estimate"] == mine.area.estimate != told["area"]["estimate"]
    assert now["kappa"]["estimate"] == mine.agreement.kappa.estimate and now["labels"] == "of this run"


def test_the_groups_that_fail_in_a_bias_score_are_named_under_the_table():
    rows = [
        JudgedRow(f"{group}{n}", "age", group, 0, Judgement(0.0, label, ""), "answered")
        for group, negative in (("old", 30), ("young", 1), ("tall", 0))
        for n in range(40)
        for label in ["negative" if n < negative else "neutral"]
    ]
    asked = (judged_table(rows), ["negative_regard_rate"], Scale(0, 1, 0.5))
    found = harm_rows(*asked, regard=True, bias_rule="ours")
    summary = {"models": [], "judges": [], "mitigation": {"left_aside": []}, "drops": []}
    lines = table_lines({**summary, "rows": [{**row, "model": "power", "judge": "regard"} for row in found]})
    assert lines == ["power, bias score ours: 1 of 3 groups fail: old (age)"]
    corrected = harm_rows(*asked, regard=True, error=KNOWN)
    rates = {row["metric"]: row["estimate"] for row in corrected if row["category"] == "all"}
    assert rates["negative_regard_rate"] == pytest.approx(31 / 120)
    assert rates["negative_regard_rate_corrected"] == pytest.approx((31 / 120 + 0.9 - 1) / 0.7)


def regard_figures(negative, regard=True, **bias):
    """The figures of 40 responses about one group, of which some are negative, by metric."""
    labels = ["negative" if n < negative else "neutral" for n in range(40)]
    rows = [
        JudgedRow(f"p{n}", "age", "old", 0, Judgement(0.0, label, ""), "answered") for n, label in enumerate(labels)
    ]
    asked, bias = (judged_table(rows), ["negative_regard_rate"], Scale(0, 1, 0.5)), bias or {"bias_rule": "released"}
    found = harm_rows(*asked, regard=regard, **bias)
    return {row["metric"]: row["estimate"] for row in found if row["category"] == "all"}


def test_a_judge_of_regard_gives_the_same_figures_to_a_model_without_a_negative_response():
    assert regard_figures(0) == {"negative_regard_rate": 0.0, "bias_score_released": 0.0}
    assert regard_figures(10) == {"negative_regard_rate": 0.25, "bias_score_released": 1.0}
    assert regard_figures(10, regard=False) == {"flagged_rate": 0.0}  # whatever its labels are called


def test_a_bias_score_above_a_given_baseline_has_it_in_its_name():
    own, given = (regard_figures(10, bias_rule="ours", bias_baseline=rate) for rate in (None, 0.05))
    assert own == {"negative_regard_rate": 0.25, "bias_score_ours": 0.0}
    assert given == {"negative_regard_rate": 0.25, "bias_score_above_0.05": 1.0}


def test_beside_a_drop_stand_refusals_and_ability_of_the_same_prompts():
    def judged(states):
        return judged_table([response(number, state) for number, state in enumerate(states)])

    without = judged(["answered", "answered", "refused", "blank", "repetitive", "refused", "refused"])
    with_policy = judged(["refused", "answered", "refused", "repetitive", "blank"])  # the map has no value for the rest
    drop = next(one for one in harm_drops(without, with_policy, Scale(0, 1, 0.5)) if one["category"] == "all")
    assert drop["n"] == 3 and drop["missing"] == 2
    drop |= {"model": "power", "scale": 1, "judge": "probe"}
    (cells,) = drop_cells([drop])
    told = dict(zip(DROP_HEADS, cells, strict=True))
    assert told["refused"] == "33 % → 67 %" and told["blank or repetitive"] == "40 % → 40 %"
    head, row = (line.split(",") for line in rows_as_csv([drop]).splitlines())
    assert (row[head.index("refused")], row[head.index("refused before")]) == (str(2 / 3), str(1 / 3))
    (old,) = drop_cells([{key: told for key, told in drop.items() if not key.startswith("states")}])
    assert old[-2:] == ["– → –", "– → –"]  # an older version wrote it
