import copy

import pytest

from jaxalign.reasoning.summary import CREST_SUMMARY, GRADINGS
from jaxalign.runs.expected import flaw

MEASURES = {
    "accuracy": 0.5,
    "interval": [0.0, 1.0],
    "consistency": 0.25,
    "consistency_interval": [0.0, 0.5],
    "all_agreed": 0.0,
    "right_with_contradiction": None,
    "second_reading": 0.5,
    "never_read": 0.0,
    "questions": 4,
}
STAGE = {"path": "stages/sft", "seconds": 1.5, "compilation_seconds": 0, "python_seconds": 0.1, "tokens": 7}
SUMMARY = {
    "dataset": "puzzles",
    "questions": {"train": 12, "validation": 4, "test": 4},
    "notes": [],
    "model": {"name": "tiny", "identity": "abc"},
    "asked": "def",
    "judge": "seed",
    "judge_identity": "abc",
    "models": [{"name": "base", "validation": MEASURES}, {"name": "sft", "validation": MEASURES, "test": MEASURES}],
    "stages": {
        "evaluate": {**STAGE, "z_tilde": {"2": {"0": 0, "2": 3}}, "followups_alike": 0.5},
        "preferences": {**STAGE, "there": {"z": 8, "z_tilde": 4}},
        "dpo": {**STAGE, "best_round": 1},
    },
    "final": None,
}


def changed(value, path, new):
    """A value with something else at a path of keys."""
    value = copy.deepcopy(value)
    *above, last = path
    inner = value
    for key in above:
        inner = inner[key]
    inner[last] = new
    return value


def test_a_summary_is_whole():
    assert flaw(SUMMARY, CREST_SUMMARY) is None
    alone = changed(
        SUMMARY, ("models", 0, "validation"), {**MEASURES, "consistency": None, "consistency_interval": None}
    )
    assert flaw(alone, CREST_SUMMARY) is None


@pytest.mark.parametrize(
    ("path", "new"),
    [
        (("models", 1, "test"), {"accuracy": 0.5}),
        (("models", 1, "test", "accuracy"), float("nan")),
        (("models", 1, "test", "consistency_interval"), None),
        (("models", 1, "test", "never_read"), "0"),
        (("models", 0, "name"), None),
        (("stages", "dpo"), {}),
        (("stages", "dpo", "seconds"), float("nan")),
        (("stages", "dpo", "best_round"), [1]),
        (("stages", "evaluate", "tokens"), "7"),
        (("stages", "evaluate", "z_tilde"), {"2": {"x": 1}}),
        (("stages", "evaluate", "z_tilde"), {"2": {"1": 1.5}}),
        (("stages", "preferences", "there"), {"z": 1, "other": 2}),
        (("dataset",), [1]),
        (("questions", "test"), "4"),
        (("model",), "tiny"),
        (("final",), 3),
    ],
)
def test_what_a_report_would_stumble_over_is_damage(path, new):
    assert flaw(changed(SUMMARY, path, new), CREST_SUMMARY) is not None


GRADE = {"estimate": 3.5, "low": 3.0, "high": 4.0, "n": 4, "left_out": 0, "missing": 0}
GRADES = [{"key": "k", "judge": "j", "missing": 0, "models": [{"name": "base", "clarity": GRADE}]}]


@pytest.mark.parametrize(
    ("path", "new"),
    [
        ((0, "models"), []),
        ((0, "models", 0), {"name": "base"}),
        ((0, "models", 0, "clarity"), {"estimate": 3.5}),
        ((0, "models", 0, "clarity", "high"), None),
        ((0, "models", 0, "clarity", "low"), "3"),
        ((0, "models"), [{"name": "base", "clarity": GRADE}, {"name": "sft", "other": GRADE}]),
    ],
)
def test_damaged_grades_are_damage(path, new):
    assert flaw(GRADES, GRADINGS) is None
    unknown = {**GRADE, "estimate": None, "low": None, "high": None}
    assert flaw(changed(GRADES, (0, "models", 0, "clarity"), unknown), GRADINGS) is None
    assert flaw(changed(GRADES, path, new), GRADINGS) is not None
