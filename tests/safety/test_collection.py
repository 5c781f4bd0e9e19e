import pytest
from synthetic_harm import judge_entry

from jaxalign.safety.benchmarks.benchmark import balanced_subset
from jaxalign.safety.collection import Collection, ReportedModel
from jaxalign.safety.report_tables import matrix_table
from jaxalign.safety.risk_tables import published_table, risk_units
from jaxalign.safety.shown_responses import Hiding, PromptPlace, ShownResponse, hiding, shown_set
from jaxalign.values.targets import extreme_targets


def judge(name, weak, about="harm"):
    told = {"judge": name, "about": about, "line": f"judge: {name}", "scale": [0, 1, 0.5]}
    return {**told, "kappa": {"estimate": 0.1 if weak else 0.8}}


def figure(category, judge, estimate, n, metric="flagged_rate"):
    told = {"category": category, "judge": judge, "metric": metric, "estimate": estimate, "n": n}
    return {**told, "low": None, "high": None, "missing": 0, "left_out": 0, "states": {}}


def model(rows, target=None, name="base", seed=0):
    told = None if target is None else extreme_targets()[target].by_value
    method = "base" if target is None else "adapter"
    about = {"model": name, "method": method, "adapter": f"{name}{seed}", "scale": 1.0, "value": target, "target": told}
    return ReportedModel(about, "none", rows, [], "run")


def collection(*models, judges=None):
    judges = judges or [judge("probe", False), judge("toxicity", True)]
    return Collection({"name": "starter_probes"}, judges, list(models), "tiny")


ROWS = [figure("all", "toxicity", 0.9, 4), figure("all", "probe", 0.2, 80)]
ROWS += [figure("toxicity", "toxicity", 0.9, 4), figure("malware", "probe", 0.2, 80)]


def test_of_several_judges_that_of_most_responses_stands_for_all_and_is_named():
    found = collection(model(ROWS))
    table = matrix_table(found, "t")
    assert [row[0] for row in table.rows] == ["all by probe", "Toxicity", "Malware"]
    assert table.rows[0][1].estimate == 0.2 and found.doubted_categories == {"toxicity"}
    assert list(table.weak) == [False, True, False]


def test_where_refusing_is_measured_the_judge_of_refusals_is_named():
    rows = [figure("all", "probe", 0.2, 80, "refusal_rate")]
    judges = [judge("probe", False), judge("refusal_probe", False, "refusal")]
    found = Collection({"name": "over_refusal"}, judges, [model(rows)], "tiny")
    assert found.judged_by == "refusal_probe"


def test_seeds_of_one_target_are_one_unit_and_an_unknown_figure_enters_no_mean():
    rows = [[figure("all", "probe", x, 8), figure("malware", "probe", x, 8)] for x in (0.2, 0.4, None)]
    found = collection(*(model(mine, "power", f"p{n}", n) for n, mine in enumerate(rows)), model(rows[0]))
    units = risk_units(found)
    assert units.names == ["power"] and units.noise.n == 2
    assert abs(units.means["malware"][0] - 0.3) < 1e-12


def test_a_direction_without_a_measured_category_is_undecided_and_says_why():
    table = published_table(collection(model(ROWS)), "t", [])
    assert {row[4] for row in table.rows} == {"undecided"}
    assert {row[8] for row in table.rows} == {"no such category was measured"}


def test_the_same_prompts_are_shown_whatever_their_order_and_each_category_has_its_share():
    places = [PromptPlace(f"p{n}", f"c{n % 3}") for n in range(30)]
    chosen = balanced_subset(places, 7)
    assert sorted(chosen) == sorted(balanced_subset(places[::-1], 7)) and len(chosen) == 7
    assert {one.category for one in chosen} == {"c0", "c1", "c2"}


def response(state, score):
    return ShownResponse("p", "t", "probe", score, None, state)


def test_what_nobody_knows_is_hidden_and_what_says_nothing_is_not():
    trusted = judge_entry("probe", 0.8)
    assert not hiding(response("blank", None), trusted) and not hiding(response("answered", 0.4), trusted)
    for state, score in (("answered", 0.5), ("refused", 0.9), ("not judged", None), ("repetitive", None)):
        assert hiding(response(state, score), trusted) == Hiding.JUDGED


def test_the_word_of_a_weak_or_unmeasured_judge_shows_no_text():
    without = judge_entry("probe", 0.8)
    without["kappa"] = {**without["kappa"], "estimate": None, "reason": "n = 3"}
    for doubted in (judge_entry("probe", 0.15), judge_entry("probe", None), without, None):
        assert (
            hiding(response("answered", 0.0), doubted) == Hiding.DOUBTED
            and hiding(response("blank", None), doubted) == Hiding.NO
        )
    assert hiding(response("answered", 0.9), judge_entry("probe", 0.15)) == Hiding.JUDGED
    assert hiding(response("answered", 0.0), judge_entry("probe", 0.2)) == Hiding.NO


def test_the_judge_of_refusals_with_the_same_name_does_not_decide_what_is_hidden():
    harm, refusal = judge_entry("guard", 0.8), {**judge_entry("guard", 0.05, "refusal"), "scale": [0.0, 1.0, None]}
    found = Collection({"name": "beavertails"}, [harm, refusal])
    said = {
        "a": response("answered", 0.1)._replace(judge="guard"),
        "b": response("answered", 0.9)._replace(judge="guard"),
    }
    model = ReportedModel({"model": "base", "method": "base", "adapter": ""}, "none", [], [], "run")
    shown = shown_set("t", found, [PromptPlace("a", "violence"), PromptPlace("b", "violence")], [(model, said)])
    assert [one[2] for one in shown["models"][0]["responses"]] == [Hiding.NO, Hiding.JUDGED]
    assert shown["note"] == (
        "A text that guard calls harmful, or that was not judged, is hidden until you ask for it. The prompts of "
        "beavertails are hidden until you ask for them, because they may be harmful, too."
    )


@pytest.mark.parametrize(
    ("benchmark", "hidden"),
    [
        *((name, True) for name in ("realtoxicityprompts", "hex_phi", "xstest", "of_somebody")),
        *((name, False) for name in ("starter_probes", "over_refusal")),
    ],
)
def test_prompts_of_benchmarks_that_are_not_ours_are_hidden(benchmark, hidden):
    model = ReportedModel({"model": "base", "method": "base", "adapter": ""}, "none", [], [], "run")
    said = {"a": response("answered", 0.1)}
    found = Collection({"name": benchmark}, [judge_entry("probe", 0.8)])
    shown = shown_set("t", found, [PromptPlace("a", "violence")], [(model, said)])
    assert [(one["text"], one["hidden"]) for one in shown["prompts"]] == [("p", hidden)]
    assert ("The prompts of" in shown["note"]) == hidden


@pytest.mark.parametrize(("harm", "refusal", "grey"), [(True, False, False), (False, True, True)])
def test_where_refusing_is_measured_the_judge_of_refusals_alone_decides_what_is_grey(harm, refusal, grey):
    judges = [judge("probe", harm), judge("refusal_probe", refusal, about="refusal")]
    found = Collection({"name": "over_refusal"}, judges)
    assert found.metric == "refusal_rate" and bool(found.doubts) == grey
    assert Collection({"name": "starter_probes"}, judges).doubts == {"probe" if harm else "refusal_probe": "weak"}
