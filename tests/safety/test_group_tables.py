"""Groups of models compared prompt by prompt, on hand-computed cases."""

import pytest
from safety.test_collection import collection, figure, judge

from jaxalign.safety.attribution_table import BENIGN, SHUFFLED
from jaxalign.safety.benchmarks.benchmark import REFUSAL_RATE
from jaxalign.safety.collection import Collection, ReportedModel
from jaxalign.safety.group_tables import MEAN_SCORE, PromptFigures, beside_base_table, groups_table, model_groups
from jaxalign.values.targets import extreme_targets

PROMPTS = [f"p{n}" for n in range(8)]
CATEGORIES = {name: "malware" if n < 6 else "toxicity" for n, name in enumerate(PROMPTS)}
JUDGES = [judge("probe", False), judge("refusals", False, "refusal")]
ROWS = [figure(category, "probe", 0.2, 8) for category in ("all", "malware", "toxicity")]


def model(name, method="adapter", target=None, control=None, scale=1.0):
    told = None if target is None else extreme_targets()[target].by_value
    about = {"model": name, "method": method, "adapter": name, "scale": scale, "value": target, "target": told}
    return ReportedModel({**about, "control": control}, "none", ROWS, [], "run")


def compared(make, scores, *models, refusals=0.0, judges=("probe",)):
    """The rows of a table as dictionaries, from the score of each prompt of each model, by all judges alike."""

    def read(one):
        mine = scores[one.about["model"]]
        if mine is None:
            return {}
        measures = {MEAN_SCORE: dict(zip(PROMPTS, mine, strict=True)), REFUSAL_RATE: dict.fromkeys(PROMPTS, refusals)}
        return dict.fromkeys(judges, PromptFigures(measures, CATEGORIES))

    told = [judge(name, False) for name in judges] + JUDGES[1:]
    table = make(collection(*models, judges=told), "t", read)
    return table and [dict(zip(table.heads, row, strict=True)) for row in table.rows], table and table.notes


def rows_of(rows, category="all", measure="mean score"):
    mine = [row for row in rows if (row["category"], row["measure"]) == (category, measure)]
    return {(row["compared"], row["with"]): row for row in mine}


BASE = [0.1 * n for n in range(8)]


def above(figures, *steps):
    """Figures that are above others, by steps that the prompts have in turn."""
    return [one + steps[place % len(steps)] for place, one in enumerate(figures)]


def test_adapters_are_compared_with_the_base_prompt_by_prompt_and_seeds_of_a_target_count_once():
    models = [
        model("base", "base"),
        model("a1", target="power"),
        model("a2", target="power"),
        model("b", target="security"),
    ]
    scores = {"base": BASE, "a1": above(BASE, 0.2), "a2": above(BASE, 0.4), "b": above(BASE, 0.1, 0.3)}
    rows, notes = compared(groups_table, scores, *models)
    row = rows_of(rows)["adapters", "base"]
    # (0.3 of the two seeds + 0.2 of security) / 2; the prompts themselves differ far more than the models do.
    assert row["difference"].estimate == pytest.approx(0.25) and row["n"] == 8 and row["models"] == "3 and 1"
    assert 0.2 < row["difference"].low < 0.25 < row["difference"].high < 0.3
    assert row["p"] == pytest.approx(2 / 2**8) and row["q"] >= row["p"] and row["size"] > 3
    # One category has 6 prompts, and one 2.
    assert rows_of(rows, "Malware")["adapters", "base"]["n"] == 6
    few = rows_of(rows, "Toxicity")["adapters", "base"]
    assert few["p"] is few["difference"].low is None and few["reason"] == "n = 2 pairs; at least 6 are needed"
    # Two seeds of power, 0.2 apart: a standard deviation of 0.1 x the square root of 2.
    assert row["noise"] == pytest.approx(0.1 * 2**0.5)
    assert "Noise of the mean score between seeds of one target: 0.141, a standard deviation" in notes[1]


def test_controls_and_role_play_are_compared_on_the_targets_that_both_have():
    models = [model("base", "base"), model("power", target="power"), model("security", target="security")]
    models += [model("shuffled", target="power", control=SHUFFLED), model("benign", control=BENIGN)]
    models += [model("role-play", "role-play", target="security"), model("half", target="power", scale=0.5)]
    scores = {"base": BASE, "power": above(BASE, 0.5), "security": above(BASE, 0.1), "half": above(BASE, 9.0)}
    scores |= {"shuffled": above(BASE, 0.2), "benign": above(BASE, 0.3), "role-play": above(BASE, 0.05)}
    rows, notes = compared(groups_table, scores, *models)
    told = {pair: (row["difference"].estimate, row["models"]) for pair, row in rows_of(rows).items()}
    assert told["adapters", "shuffled labels"] == (pytest.approx(0.3), "1 and 1")
    assert told["adapters", "role-play"] == (pytest.approx(0.05), "1 and 1")
    assert told["adapters", "benign control"] == (pytest.approx(0.0), "2 and 1")
    assert told["adapters", "base"] == (pytest.approx(0.3), "2 and 1")
    assert told["role-play", "shuffled labels"] == (None, "0 and 0")
    assert rows_of(rows)["role-play", "shuffled labels"]["reason"] == "no target is in both groups"
    assert (
        len(told) == 10 and len(rows_of(rows, "Malware")) == 4
    )  # each pair of five groups; of a category, the adapters
    assert "not known (no target has two seeds)" in notes[1]


def test_a_missing_figure_enters_no_pair_and_refusals_are_compared_too():
    scores = {"base": BASE, "power": [None, *above(BASE, 0.5)[1:]]}
    rows, _ = compared(groups_table, scores, model("base", "base"), model("power", target="power"), refusals=0.25)
    row = rows_of(rows)["adapters", "base"]
    assert (row["n"], row["difference"].missing) == (7, 1) and row["difference"].estimate == pytest.approx(0.5)
    refused = rows_of(rows, measure="refusal rate")["adapters", "base"]
    assert (refused["judge"], refused["difference"].estimate, refused["p"]) == ("refusals", 0, 1)


def test_q_is_corrected_for_the_rows_of_all_judges_of_a_measure():
    scores = {"base": BASE, "power": above(BASE, 0.5)}
    rows, _ = compared(
        groups_table, scores, model("base", "base"), model("power", target="power"), judges=("probe", "toxicity")
    )
    mine = [row for row in rows if row["measure"] == "mean score" and row["p"] is not None]
    assert [(row["judge"], row["category"]) for row in mine] == [
        ("probe", "all"),
        ("probe", "Malware"),
        ("toxicity", "Malware"),
    ]
    # Sorted, the p-values are 2/2⁸ and twice 2/2⁶, so that q is 3 × 2/2⁸ and 2/2⁶; of the probe alone, 2 × 2/2⁸.
    assert [row["q"] for row in mine] == pytest.approx([6 / 2**8, 2 / 2**6, 2 / 2**6])


def test_a_model_without_judged_responses_is_not_counted_and_is_named():
    models = [model("base", "base"), model("a1", target="power"), model("a2", target="power")]
    models += [model("b", target="security"), model("shuffled", target="security", control=SHUFFLED)]
    scores = {"base": BASE, "a1": above(BASE, 0.2), "a2": None, "b": None, "shuffled": BASE}
    rows, notes = compared(groups_table, scores, *models)
    told = rows_of(rows)
    assert told["adapters", "base"]["models"] == "1 and 1"
    both = told["adapters", "shuffled labels"]
    assert (both["models"], both["reason"]) == ("0 and 0", "a group has no figures")
    assert "Without judged responses, and not counted: a2, b." in notes


def test_one_group_or_no_records_make_no_table():
    assert compared(groups_table, {"base": BASE}, model("base", "base"))[0] is None
    lost = {"base": None, "power": None}
    for make in (groups_table, beside_base_table):
        assert compared(make, lost, model("base", "base"), model("power", target="power"))[0] is None


def test_each_model_stands_beside_the_base_prompt_by_prompt():
    models = [model("base", "base"), model("power", target="power"), model("half", target="power", scale=0.5)]
    scores = {"base": BASE, "power": above(BASE, 0.4, 0.6), "half": above(BASE, 0.2)}
    rows, _ = compared(beside_base_table, scores, *models)
    told = {(row["model"], row["measure"]): row for row in rows}
    assert told["power", "mean score"]["difference"].estimate == pytest.approx(0.5)
    assert told["half × 0.5", "mean score"]["difference"].estimate == pytest.approx(0.2)
    assert told["power", "mean score"]["p"] == pytest.approx(2 / 2**8) and len(rows) == 4


def test_controls_and_other_scales_are_in_groups_of_their_own():
    models = [model("base", "base"), model("power", target="power"), model("half", target="power", scale=0.5)]
    models += [model("shuffled", target="power", control=SHUFFLED)]
    groups = {one.name: [each.about["model"] for each in one.models] for one in model_groups(collection(*models))}
    assert groups == {"adapters": ["power"], "shuffled labels": ["shuffled"], "base": ["base"]}


def test_where_refusing_is_measured_it_alone_is_compared_and_its_judge_is_named():
    rows = [figure("all", "probe", 0.2, 8, REFUSAL_RATE)]
    models = [
        ReportedModel(one.about, "none", rows, [], "run") for one in (model("base", "base"), model("a", "adapter"))
    ]
    measures = {MEAN_SCORE: dict.fromkeys(PROMPTS, 0.5), REFUSAL_RATE: dict.fromkeys(PROMPTS, 1.0)}
    found = Collection({"name": "over_refusal"}, JUDGES, models, "tiny")
    table = groups_table(found, "t", lambda one: {"probe": PromptFigures(measures, CATEGORIES)})
    assert table is not None and {(row[1], row[4]) for row in table.rows} == {("refusal rate", "refusals")}
