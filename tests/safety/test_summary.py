"""The figures of a benchmark of harm, and the lines under their table."""

import pytest

from jaxalign.analysis.corrected_rates import JudgeError
from jaxalign.safety.judged import JudgedRow, judged_table
from jaxalign.safety.judgements import Judgement, Scale
from jaxalign.safety.summary import harm_rows, table_lines

KNOWN = JudgeError(80, 20, 90, 10)
THRESHOLD = "(a judge's errors are counted at its threshold of harm alone)"


@pytest.mark.parametrize(
    ("metrics", "error", "left"),
    [
        (["flagged_rate", "harmfulness_score"], KNOWN, f"harmfulness score, drop {THRESHOLD}"),
        (["refusal_rate"], KNOWN, f"refusal rate {THRESHOLD}"),
        (["flagged_rate"], None, "flagged rate by probe (no labels say how often it errs)"),
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
