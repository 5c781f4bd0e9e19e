"""Tasks of lm-evaluation-harness beside harm, on hand-computed figures."""

import math
from dataclasses import replace

import pytest
from safety.test_collection import collection

from jaxalign.safety.collection import ReportedModel
from jaxalign.safety.task_results import TaskFigure
from jaxalign.safety.task_tables import mean_differences, task_difference, tasks_table
from jaxalign.values.schwartz import VALUES


def figure(value, task="arc", metric="acc", error: float | None = 0.03, shots=0):
    return TaskFigure(task, metric, value, error, True, 200, {"number of examples": shots})


def model(name, method="adapter"):
    about = {"model": name, "method": method, "adapter": name, "scale": 1.0, "value": None, "target": None}
    return ReportedModel(about, "none", [], [], "run", "abc-float32")


def scores_of(**adapters):
    """Figures of adapters by name, each with the base's; the base's hash is that in the signature of `model`."""
    return {
        ("abc", name): {(mine.task, mine.metric): (mine, base) for mine, base in pairs}
        for name, pairs in adapters.items()
    }


def test_a_difference_has_the_error_of_two_independent_figures():
    change = task_difference(figure(0.45, error=0.04), figure(0.5))
    assert change.estimate == pytest.approx(-0.05) and change.n == 200
    assert (change.low, change.high) == (pytest.approx(-0.05 - 1.96 * 0.05), pytest.approx(-0.05 + 1.96 * 0.05))
    alone = task_difference(figure(0.45, error=None), figure(0.5))
    assert alone.estimate == pytest.approx(-0.05) and alone.low is alone.high is None


def test_without_a_result_of_the_base_that_was_asked_alike_there_is_no_difference():
    assert task_difference(figure(0.5), None).reason == "the base has no result of it"
    change = task_difference(figure(0.5), figure(0.5, shots=5))
    assert (change.estimate, change.reason) == (None, "the base was asked otherwise (number of examples)")


def test_the_mean_is_over_the_tasks_in_which_all_adapters_can_be_compared():
    one = [(figure(0.6), figure(0.5)), (figure(0.9, "boolq"), figure(0.5, "boolq"))]
    other = [(figure(0.4), figure(0.5)), (figure(0.7, "boolq"), figure(0.5, "boolq", shots=5))]
    third = [(figure(0.4, shots=5), figure(0.5))]
    found = collection(*map(model, ("one", "other", "third")))
    means, tasks, without = mean_differences(found, scores_of(one=one, other=other, third=third))
    assert tasks == ["arc (acc)"] and without == {"third": "the base was asked otherwise (number of examples)"}
    assert {name: mean.estimate for name, mean in means.items()} == pytest.approx({"one": 0.1, "other": -0.1})


def test_of_several_rates_of_a_task_the_first_counts_and_what_is_no_rate_does_not():
    pairs = [(figure(0.6), figure(0.5)), (figure(0.9, metric="acc_norm"), figure(0.5, metric="acc_norm"))]
    pairs += [(figure(30.0, "text", "word_perplexity"), figure(40.0, "text", "word_perplexity"))]
    means, tasks, _ = mean_differences(collection(model("one")), scores_of(one=pairs))
    assert tasks == ["arc (acc)"] and means["one"].estimate == pytest.approx(0.1)
    means, _, without = mean_differences(collection(model("one")), scores_of(one=pairs[2:]))
    assert means == {} and without == {"one": "none of its tasks has a share of right answers"}


def test_the_table_has_adapters_alone_task_by_task():
    found = collection(model("base", "base"), model("b"), model("a"))
    pairs = [(figure(0.6, "boolq"), figure(0.5, "boolq")), (figure(0.6), figure(0.5))]
    table = tasks_table(found, "t", scores_of(a=pairs, b=pairs, base=pairs))
    assert table is not None
    rows = [dict(zip(table.heads, row, strict=True)) for row in table.rows]
    assert [(row["task"], row["model"]) for row in rows] == [("arc", "b"), ("arc", "a"), ("boolq", "b"), ("boolq", "a")]
    assert rows[0]["standard error"] == pytest.approx(0.03 * 2**0.5) and rows[0]["better"] == "higher"
    assert tasks_table(found, "t", {}) is None


def test_the_noise_between_seeds_stands_beside_each_difference():
    target = dict.fromkeys(VALUES, 1.0) | {"power": 6.0}
    models = [model(name) for name in ("one", "two", "other")]
    models = [replace(one, about={**one.about, "target": target, "value": "power"}) for one in models[:2]] + models[2:]
    pairs = {"one": 0.6, "two": 0.4, "other": 0.9}
    scores = scores_of(**{name: [(figure(value), figure(0.5))] for name, value in pairs.items()})
    table = tasks_table(collection(*models), "t", scores)
    assert table is not None
    rows = [dict(zip(table.heads, row, strict=True)) for row in table.rows]
    assert [one["noise"] for one in rows] == pytest.approx([math.sqrt(0.02)] * 3)
    assert not any("No noise" in note for note in table.notes)
    alone = tasks_table(collection(*models[1:]), "t", scores)
    assert alone is not None and "No noise: no target has two seeds." in alone.notes
