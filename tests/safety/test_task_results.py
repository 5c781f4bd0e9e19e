"""What is read of a results file of lm-evaluation-harness, and what is refused."""

import json

import pytest
from hostile import VALUES, few, survives
from hypothesis import given
from hypothesis import strategies as st
from lm_eval_results import results, write

from jaxalign.errors import UserError
from jaxalign.safety.task_results import read_task_results


def test_each_metric_of_a_task_or_a_group_is_a_figure(tmp_path):
    found = read_task_results(write(tmp_path / "r.json", results("aa", date=2.0)))
    assert (found.key, found.precision, found.date) == (("base", "aa"), "float32", 2.0)
    figures = {(one.task, one.metric): one for one in found.figures}
    assert set(figures) == {
        *((task, metric) for task in ("arc", "boolq") for metric in ("acc", "acc_norm")),
        *(("both", "acc"), ("text", "word_perplexity")),
        *(("sums", f"exact_match ({name})") for name in ("strict", "flexible")),
    }
    told = {key: (one.value, one.error, one.higher, one.n, one.is_rate) for key, one in figures.items()}
    assert told["arc", "acc"] == (0.5, 0.03, True, 200, True)
    assert told["text", "word_perplexity"] == (40.0, None, False, 200, False)
    assert told["both", "acc"] == (0.55, 0.02, None, None, False)  # a group is no single task
    assert told["sums", "exact_match (strict)"] == (0.1, 0.02, None, 200, True)


def test_what_decides_the_questions_of_a_task_is_not_whose_answers_they_are(tmp_path):
    base, adapter, other = (
        read_task_results(write(tmp_path / "r.json", told)) for told in (results(), results("aa"), results(shots=5))
    )
    assert base.conditions("arc") == adapter.conditions("arc") != other.conditions("arc")
    assert base.conditions("boolq") == other.conditions("boolq")  # its examples are the same


def test_results_of_another_program_or_of_unknown_weights_are_told_in_words(tmp_path):
    assert read_task_results(write(tmp_path / "r.json", results(model="hf"))) == (
        "its model is 'hf' of lm-eval, not jaxalign"
    )
    told = results()
    del told["config"]["jaxalign_adapter"]
    said = read_task_results(write(tmp_path / "r.json", told))
    assert str(said).startswith("it does not say which weights were asked: run the tasks again with lm-eval 0.4.11")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"results": None}, "no results file of lm-eval ('results' is missing or damaged)"),
        ({"n-shot": []}, "'n-shot' is missing or damaged"),
        ({"results": {"arc": 1}}, "results: 'arc' is missing or damaged"),
        ({"results": {"arc": {"acc,none": "high"}}}, "results of arc: acc,none is 'high'"),
        ({"results": {"arc": {"acc,none": True}}}, "acc,none is True"),
        ({"results": {"arc": {"acc,none": 0.5, "acc_stderr,none": -1}}}, "acc_stderr,none is -1"),
        ({"results": {"arc": {"acc,none": float("nan")}}}, "holds NaN, which is not a number in JSON"),
        ({"results": {"arc\x1b[2J": {}}}, r"it names a task or metric 'arc\x1b[2J'"),
        ({"higher_is_better": {"arc": 1}}, "higher_is_better: 'arc' is missing or damaged"),
    ],
)
def test_a_file_that_lm_eval_did_not_write_is_one_line(tmp_path, change, words):
    path = write(tmp_path / "results_1.json", results(more=change))
    with pytest.raises(UserError) as error:
        read_task_results(path)
    assert words in str(error.value) and "results_1.json" in str(error.value) and "\n" not in str(error.value)


@few
@given(data=st.data())
def test_any_object_is_results_or_one_line(data):
    parts = [
        "results",
        "groups",
        "configs",
        "n-samples",
        "group_subtasks",
        "higher_is_better",
        "config",
        "date",
        "versions",
    ]
    told = results(more=data.draw(st.dictionaries(st.sampled_from(parts), VALUES, max_size=2)))
    if isinstance(told["results"], dict) and isinstance(told["results"].get("arc"), dict):
        key = data.draw(st.sampled_from(["acc,none", "acc_stderr,none", ",", "_stderr,", "a,b,c"]))
        told["results"]["arc"][key] = data.draw(VALUES)
    survives(read_task_results, "results_1.json", json.dumps(told).encode())
