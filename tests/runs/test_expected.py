"""What stored values must hold: the first flaw is named with its place."""

import math

import pytest

from jaxalign.errors import UserError
from jaxalign.runs.expected import Each, Maybe, as_expected, damage, flaw

WHOLE = {"name": "a", "kind": "train", "sizes": [1, 2], "range": [0.0, 1], "more": {"x": {"n": 1}}, "done": True}
EXPECTED = {
    **{"name": str, "kind": {"train", "test"}, "sizes": [int], "range": (int | float, int | float)},
    **{"more": Each({"n": int}), "done": bool, "note": Maybe(str)},
}


def test_what_is_as_expected_has_no_flaw_and_is_returned():
    assert flaw(WHOLE, EXPECTED) is None and damage(WHOLE | {"note": None}, EXPECTED) is None
    assert as_expected(WHOLE, EXPECTED, "file", "") is WHOLE


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"name": 1}, "'name'"),
        ({"name": "\ud83d"}, "'name'"),
        ({"kind": "other"}, "'kind'"),
        ({"kind": ["train"]}, "'kind'"),
        ({"sizes": [1, True]}, "'sizes 2'"),
        ({"sizes": [1, 10**400]}, "'sizes 2'"),
        ({"sizes": {}}, "'sizes'"),
        ({"range": [1]}, "'range'"),
        ({"more": {"x": {"n": 1}, "y": {}}}, "more, y: 'n'"),
        ({"more": {"x": 1}}, "more: 'x'"),
        ({"done": 1}, "'done'"),
        ({"note": 7}, "'note'"),
    ],
)
def test_the_first_flaw_is_named_with_its_place(change, words):
    assert damage(WHOLE | change, EXPECTED) == f"{words} is missing or damaged"
    with pytest.raises(UserError) as error:
        as_expected(WHOLE | change, EXPECTED, "summary.json", "do it again")
    assert str(error.value) == f"summary.json is damaged ({words} is missing or damaged); do it again"


def test_a_key_that_may_be_null_may_still_not_be_missing():
    expected = {"score": Maybe(math.isfinite, missing=False), "label": str | None}
    assert flaw({"score": None, "label": None}, expected) is None
    assert flaw({"label": None}, expected | {"score": Maybe(float, missing=False)}) == ("score",)
    assert flaw({"score": 1.0}, expected) == ("label",)
    assert flaw({"score": math.inf, "label": ""}, expected) == ("score",)


@pytest.mark.parametrize("found", [None, [], "text"])
def test_what_is_no_object_is_called_so(found):
    assert damage(found, EXPECTED) == "not a JSON object"
