"""What `evaluate` prints of a summary of a benchmark of harm; the run is drawn, without any model."""

import io
import json
from types import SimpleNamespace

import pytest
from synthetic_harm import Lab, judge_entry

from jaxalign.jobs.harm.printed_summary import harm_tables, report_harm
from jaxalign.runs.progress import plain_console
from jaxalign.safety.summary_lines import table_lines

HOSTILE = "old\x1b[31mRED\x1b]0;title\x07\x9b2J"


def printed(summary, path, **settings):
    file = io.StringIO()
    run = SimpleNamespace(path=path, summary=path / "summary.json")
    report_harm(plain_console(file=file, **{"width": 200, **settings}), summary, run)  # pyright: ignore[reportArgumentType]
    return file.getvalue()


def summary_of(lab, models, name="run", **more):
    summary = json.loads((lab.run(models, name, **more) / "summary.json").read_text())
    for model in summary["models"]:
        model["states"] = {"answered": 20, "blank": 4}
    return summary


def test_an_escape_in_a_benchmark_or_a_name_does_not_reach_the_terminal(tmp_path):
    lab = Lab(tmp_path)
    summary = summary_of(lab, [lab.base(), lab.adapter(None, "evil\x1b[5m")])
    summary["rows"][0] |= {"metric": "bias_score", "failing": [["age", HOSTILE]]}
    shown = printed(summary, tmp_path)
    assert "old[31mRED]0;title2J (age)" in shown  # under the table
    assert "evil[5m" in shown  # in its cells
    assert all(one.isprintable() or one == "\n" for one in shown)
    coloured = printed(summary, tmp_path, force_terminal=True, color_system="standard", no_color=False)
    assert "\x1b[1m" in coloured and "\x1b[31m" not in coloured  # our own bold head, and not the benchmark's red


WHO = "shipped labels: one reader gave them, a language model, and no human has checked them"


def test_it_is_said_that_no_human_checked_the_labels_that_ship_and_only_of_these(tmp_path, capsys):
    lab = Lab(tmp_path / "runs")
    summary = summary_of(lab, [lab.base(), lab.adapter(None)])
    lines = printed(summary, tmp_path).splitlines()
    assert lines.count(WHO) == 1 and lines.index(WHO) > max(n for n, one in enumerate(lines) if "judge: " in one)
    lab.report(capsys)
    assert WHO in lab.page() and "with people" not in lab.page()
    for judges in ([{**judge_entry(), "labels": "of this run"}], [judge_entry(kappa=None)], []):
        assert WHO not in printed({**summary, "judges": judges}, tmp_path)


def test_drops_are_printed_beside_refusals_and_ability_and_why_perplexity_is_not(tmp_path):
    lab = Lab(tmp_path)
    summary = summary_of(lab, [lab.base()], mitigation="safety_prompt")
    (row,) = [one for one in summary["rows"] if (one["category"], one["metric"]) == ("all", "harmfulness_score")]
    before = {**row["states"], "blank": 0.1, "repetitive": 0.15, "refused": 0.25, "answered": 0.75}
    after = {**before, "blank": 0.5, "repetitive": 0.0, "refused": 0.75, "answered": 0.25}
    summary["drops"] = [{**row, "metric": "drop", "states": after, "states_before": before}]
    lines = printed(summary, tmp_path).splitlines()
    assert any("25 % → 75 %" in one and "25 % → 50 %" in one for one in lines)
    assert any(one.startswith("refused, and blank or repetitive: without the mitigation → with it") for one in lines)
    narrow = printed(summary, tmp_path, width=80)
    assert "25 % → 75 %" in narrow and "25 % → 50 %" in narrow
    assert any(
        "perplexity is read of plain text without a prompt, so a mitigation does not change it" in one for one in lines
    )


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
