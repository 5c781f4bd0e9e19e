"""Results of lm-evaluation-harness in a report, from files of the form in which lm-eval 0.4.13 writes them."""

import pytest
from command_line import refused
from lm_eval_results import RIGHT, results, write
from synthetic_harm import Lab

from jaxalign.jobs.harm.task_files import results_files
from jaxalign.report import main


@pytest.fixture
def asked(lab):
    """The base, and the adapters power and security, which a run of a benchmark asked."""
    models = lab.extreme("power", "security")
    lab.run(models, "one")
    return models


def table(lab, name):
    return lab.table(f"beavertails-{name}")


def report(lab, capsys, where):
    return lab.report(capsys, "texts=0", f"ability={where}")


def test_tasks_stand_beside_harm_with_the_difference_from_the_base(lab, asked, capsys, tmp_path):
    folder = tmp_path / "lm eval [1]"
    write(folder / "tiny" / "results_1.json", results())
    right = {"arc": 0.45, "boolq": 0.4}
    write(folder / "tiny" / "results_2.json", results(asked[1]["adapter"], right, error=0.04))
    printed = report(lab, capsys, folder)
    assert "left aside" not in printed
    rows = {(one["task"], one["metric"]): one for one in table(lab, "tasks")}
    assert {one["model"] for one in rows.values()} == {"power"}
    assert set(rows) == {
        *((task, metric) for task in ("arc", "boolq") for metric in ("acc", "acc_norm")),
        *(("both", "acc"), ("text", "word_perplexity"), ("sums", "exact_match (strict)")),
        ("sums", "exact_match (flexible)"),
    }
    arc = rows["arc", "acc"]
    found = [float(arc[name]) for name in ("base", "adapter", "difference", "standard error")]
    assert found == pytest.approx([0.5, 0.45, -0.05, 0.05])  # 0.05 = √(0.03² + 0.04²)
    limits = [float(arc[name]) for name in ("difference low", "difference high", "base low", "adapter high")]
    assert limits == pytest.approx([-0.05 - 1.96 * 0.05, -0.05 + 1.96 * 0.05, 0.5 - 1.96 * 0.03, 0.45 + 1.96 * 0.04])
    assert arc["better"] == "higher" and arc["n"] == "200" and not arc["remark"]
    text = rows["text", "word_perplexity"]
    assert (text["better"], text["difference"], text["difference low"], text["standard error"]) == (
        "lower",
        "0.0",
        "",
        "",
    )
    assert rows["both", "acc"]["n"] == ""
    # The mean over three tasks, of each its first rate: (−0.05 − 0.2 + 0) / 3, and √(0.05² + 0.05² + 2 × 0.02²) / 3.
    ability = {one["model"]: one for one in table(lab, "ability")}
    power = ability["power"]
    error = (2 * 0.05**2 + 2 * 0.02**2) ** 0.5 / 3
    assert float(power["tasks, difference"]) == pytest.approx(-0.25 / 3)
    assert float(power["tasks, difference low"]) == pytest.approx(-0.25 / 3 - 1.96 * error)
    assert ability["base"]["tasks, difference"] == ability["security"]["tasks, difference"] == ""
    page = lab.page()
    assert "tasks of lm-evaluation-harness" in page and "as a mean over arc (acc), boolq (acc), sums" in page


def test_without_results_the_report_is_as_before(lab, asked, capsys):
    lab.report(capsys, "texts=0")
    assert "tasks, difference" not in table(lab, "ability")[0]
    assert not (lab.root / "report" / "tables" / "beavertails-tasks.csv").exists()


def test_what_cannot_be_compared_is_said(lab, asked, capsys, tmp_path):
    """Files of other models are left aside, as is an older result; what was asked otherwise has no difference."""
    write(tmp_path / "lm" / "results_base.json", results(shots=5))
    write(tmp_path / "lm" / "results_new.json", results(asked[1]["adapter"], date=3.0))
    write(tmp_path / "lm" / "results_old.json", results(asked[1]["adapter"], {"arc": 0.9, "boolq": 0.9}, date=2.0))
    write(tmp_path / "lm" / "results_hf.json", results(model="hf"))
    write(tmp_path / "lm" / "results_other.json", results("ffff"))
    write(tmp_path / "lm" / "results_wider.json", results(base="another"))
    nameless = results()
    del nameless["config"]["jaxalign_base"]
    write(tmp_path / "lm" / "results_nameless.json", nameless)
    printed = report(lab, capsys, tmp_path / "lm")
    aside = {
        line.partition("results_")[2].partition(".json")[0]: line for line in printed.splitlines() if "aside" in line
    }
    assert set(aside) == {"old", "hf", "other", "wider", "nameless"}
    assert "its model is 'hf' of lm-eval" in aside["hf"] and "another base" in aside["wider"]
    assert "no run of the report asked its adapter" in aside["other"]
    assert "lm-eval 0.4.11" in aside["nameless"] and "results_new.json" in aside["old"]
    assert all(line in lab.page() for line in ("its adapter at this scale",))
    rows = {(one["task"], one["metric"]): one for one in table(lab, "tasks")}
    assert rows["arc", "acc"]["adapter"] == "0.5" and rows["arc", "acc"]["difference"] == ""
    assert rows["arc", "acc"]["remark"] == "the base was asked otherwise (number of examples)"
    assert rows["boolq", "acc"]["difference"] == "0.0"
    # The mean is over what all adapters can be compared in.
    assert "as a mean over boolq (acc), sums" in (lab.root / "report" / "tables" / "beavertails-ability.md").read_text()


def of_two_bases(lab, asked, perplexity=None):
    """Runs of another benchmark, of the same adapter on another base; `perplexity` is that of the bases."""
    other = Lab(lab.root, benchmark="hex_phi", signature="wider-float32")
    told = [other.base(), asked[1]]
    other.run([{**one, "perplexity": perplexity} for one in told] if perplexity else told, "two")


@pytest.mark.slow
def test_each_benchmark_has_the_results_of_its_own_base(lab, asked, capsys, tmp_path):
    """An adapter's hash is the same on both bases, and the result of the second base is the later one."""
    of_two_bases(lab, asked)
    for date, (base, right, mine) in enumerate((("base", 0.5, 0.4), ("wider", 0.9, 0.7))):
        for adapter, share in (("", right), (asked[1]["adapter"], mine)):
            told = results(adapter, dict.fromkeys(RIGHT, share), base=base, date=float(date))
            write(tmp_path / "lm" / f"results_{base}_{bool(adapter)}.json", told)
    assert "left aside" not in report(lab, capsys, tmp_path / "lm")
    for benchmark, expected in (("beavertails", (0.5, 0.4)), ("hex_phi", (0.9, 0.7))):
        (row,) = (one for one in lab.table(f"{benchmark}-tasks") if (one["task"], one["metric"]) == ("arc", "acc"))
        assert (float(row["base"]), float(row["adapter"])) == expected


@pytest.mark.slow
def test_each_benchmark_has_the_perplexity_of_its_own_base(lab, asked, capsys):
    of_two_bases(lab, asked, perplexity=7.0)
    lab.report(capsys, "texts=0")
    for benchmark, expected in (("beavertails", ("100.0", "120.0")), ("hex_phi", ("7.0", "7.0"))):
        rows = {one["model"]: one["perplexity"] for one in lab.table(f"{benchmark}-ability")}
        assert (rows["base"], rows["power"]) == expected


def test_of_two_results_of_the_base_the_one_that_was_asked_alike_is_taken(lab, asked, capsys, tmp_path):
    write(tmp_path / "lm" / "results_mine.json", results(asked[1]["adapter"], date=2.0))
    write(tmp_path / "lm" / "results_oldest.json", results(right={"arc": 0.1, "boolq": 0.1}, date=0.0))
    write(tmp_path / "lm" / "results_alike.json", results(right={"arc": 0.4, "boolq": 0.4}, date=1.0))
    write(tmp_path / "lm" / "results_later.json", results(right={"arc": 0.9, "boolq": 0.9}, date=3.0, shots=5))
    printed = report(lab, capsys, tmp_path / "lm")
    rows = {(one["task"], one["metric"]): one["base"] for one in table(lab, "tasks")}
    assert (rows["arc", "acc"], rows["boolq", "acc"]) == ("0.4", "0.9")  # five examples were for arc alone
    lines = [line for line in printed.splitlines() if "aside" in line]
    words = {
        "results_later.json: its results of arc are left aside, because": "asked as the adapters' were",
        "results_oldest.json: its results of arc are left aside, because": "results_alike.json has later ones",
        "results_alike.json: its results of boolq": "results_later.json has later ones",
    }
    for begin, end in words.items():
        assert any(begin in line and line.endswith(end) for line in lines), begin


def test_one_adapter_that_cannot_be_compared_takes_no_figure_from_the_others(lab, asked, capsys, tmp_path):
    """Its cell is empty, and a note says why."""
    write(tmp_path / "lm" / "results_base.json", results())
    write(tmp_path / "lm" / "results_power.json", results(asked[1]["adapter"], {"arc": 0.4, "boolq": 0.5}))
    told = results(asked[2]["adapter"])
    told["config"]["limit"] = 10
    write(tmp_path / "lm" / "results_security.json", told)
    report(lab, capsys, tmp_path / "lm")
    ability = {one["model"]: one for one in table(lab, "ability")}
    assert float(ability["power"]["tasks, difference"]) == pytest.approx(-0.2 / 3)
    assert ability["security"]["tasks, difference"] == ""
    page = (lab.root / "report" / "tables" / "beavertails-ability.md").read_text(encoding="utf-8")
    assert "Tasks: no difference of security: the base was asked otherwise (limit)." in page


def test_an_adapter_without_results_of_the_base_is_shown_alone(lab, asked, capsys, tmp_path):
    path = write(tmp_path / "power_2026.json", results(asked[1]["adapter"]))
    report(lab, capsys, path)
    assert {one["remark"] for one in table(lab, "tasks")} == {"the base has no result of it"}
    assert "tasks, difference" not in table(lab, "ability")[0]
    page = (lab.root / "report" / "tables" / "beavertails-ability.md").read_text(encoding="utf-8")
    assert "Tasks: no difference of power: the base has no result of it." in page


def test_a_file_that_lm_eval_did_not_write_is_refused_in_one_line_before_anything_is_written(
    lab, asked, capsys, tmp_path
):
    path = write(tmp_path / "results_1.json", results(more={"results": None}))
    line = refused(main, [f"runs={lab.root}", f"ability={path}"], capsys)
    assert "results_1.json is no results file of lm-eval ('results' is missing or damaged)" in line
    assert not (lab.root / "report").exists()


def test_a_pattern_that_finds_nothing_is_refused(lab, asked, capsys, tmp_path):
    for where in (tmp_path / "none", tmp_path / "*.nothing"):
        assert "finds no results of lm-eval" in refused(main, [f"runs={lab.root}", f"ability={where}"], capsys)
    write(tmp_path / "a" / "b" / "results_1.json", {})
    write(tmp_path / "a" / "samples_arc.json", {})
    for where in ("a", "a/b", "a/**/results_*.json", "*/b", "a/b/results_1.json"):
        assert [path.name for path in results_files(str(tmp_path / where))] == ["results_1.json"]


def test_adapters_that_were_asked_in_two_ways_each_stand_beside_the_base_s_result_of_their_way(
    lab, asked, capsys, tmp_path
):
    for shots, right in ((0, 0.5), (5, 0.7)):
        base = results(right={"arc": right, "boolq": 0.6}, shots=shots, date=float(shots))
        mine = results(asked[1 + bool(shots)]["adapter"], {"arc": right - 0.1, "boolq": 0.6}, shots=shots)
        write(tmp_path / "lm" / f"results_base_{shots}.json", base)
        write(tmp_path / "lm" / f"results_mine_{shots}.json", mine)
    report(lab, capsys, tmp_path / "lm")
    rows = {one["model"]: one for one in table(lab, "tasks") if (one["task"], one["metric"]) == ("arc", "acc")}
    assert {name: (one["base"], one["remark"]) for name, one in rows.items()} == {
        "power": ("0.5", ""),
        "security": ("0.7", ""),
    }
