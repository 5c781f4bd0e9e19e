import pytest

from jaxalign.jobs.harm.aggregate import harm_tables
from jaxalign.safety.summary_lines import table_lines


def row(judge, metric):
    told = {"category": "all", "model": "base", "judge": judge, "metric": metric, "estimate": 0.2, "low": 0.1}
    return {**told, "high": 0.3, "n": 9, "missing": 0}


@pytest.mark.parametrize(
    ("harm", "refusals", "grey"),
    [(0.8, 0.8, [False, False]), (None, 0.8, [True, False]), (0.1, None, [True, True]), (0.8, 0.1, [False, True])],
)
def test_rows_of_a_judge_that_is_weak_or_not_measured_are_grey_and_a_line_says_which(harm, refusals, grey):
    judges = [
        {"judge": name, "about": about, "line": "", "kappa": kappa and {"estimate": kappa}}
        for name, about, kappa in (("guard", "harm", harm), ("refusal_probe", "refusal", refusals))
    ]
    rows = [row("guard", metric) for metric in ("flagged_rate", "refusal_rate")]
    summary = {"models": [{"states": {"answered": 9}, "model": "base", "method": "base"}], "judges": judges}
    whole = next(harm_tables(summary, rows))
    assert [one.style == "dim" for one in whole.rows] == grey
    lines = table_lines({**summary, "rows": rows, "drops": [], "mitigation": {"left_aside": []}})
    for judge, kappa in (("guard", harm), ("refusal_probe", refusals)):
        said = [line for line in lines if line.startswith(f"{judge}: ")]
        assert [("not measured" in one, "stage=label run=DIR" in one) for one in said] == (
            [(True, True)] if kappa is None else [(False, False)] if kappa < 0.2 else []
        )
