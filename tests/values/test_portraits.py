"""Portraits from files, and the questions about them."""

import json
from collections import Counter

import numpy as np
import pytest
from hostile import few, survives, tables
from hypothesis import given
from hypothesis import strategies as st
from values.few_portraits import CHOICE, ENCODER, PORTRAITS, PROMPTS, decode

from jaxalign.errors import UserError
from jaxalign.inference.multiple_choice import choice_log_probs
from jaxalign.values.injection import make_prompts, survey_answer, survey_question
from jaxalign.values.portraits import (
    PORTRAIT_NUMBERS,
    SCORES,
    choice_pairs,
    choice_question,
    load_portraits,
    make_choice_prompts,
    portrait_question,
)
from jaxalign.values.schwartz import VALUES, phrase


def paths(question):
    """The text from the prompt's end to the end of each answer."""
    texts = []
    for end in question.ends:
        pieces = []
        while end > 0:
            pieces.append(question.tree[end].tokens)
            end = question.tree[end].parent
        texts.append("".join(decode(piece) for piece in reversed(pieces)))
    return texts


def test_the_starter_portraits_are_keyed_as_the_official_questionnaire():
    assert [portrait.number for portrait in PORTRAITS] == list(range(1, 41))
    assert all(portrait.number in PORTRAIT_NUMBERS[portrait.value] for portrait in PORTRAITS)
    assert sorted(number for numbers in PORTRAIT_NUMBERS.values() for number in numbers) == list(range(1, 41))


def test_the_starter_portraits_are_short_different_and_do_not_name_their_value():
    assert len({portrait.text for portrait in PORTRAITS}) == 40
    for portrait in PORTRAITS:
        assert 12 <= len(portrait.text.split()) <= 30
        assert "this person" in portrait.text.lower()
        assert not any(phrase(value) in portrait.text.lower() for value in VALUES)


def write(path, rows):
    separator = {".csv": ",", ".tsv": "\t"}.get(path.suffix)
    if separator is None:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        lines = [list(rows[0]), *(row.values() for row in rows)]
        path.write_text("".join(separator.join(map(str, line)) + "\n" for line in lines))
    return str(path)


def items(name="number", count=40, **more):
    return [{name: number, "text": f"Likes  the number {number}.", **more} for number in range(count, 0, -1)]


@pytest.mark.parametrize("file", ["items.jsonl", "items.csv", "items.tsv"])
@pytest.mark.parametrize("name", ["number", "id"])
def test_official_items_from_a_file_take_the_official_key(tmp_path, file, name):
    portraits = load_portraits(write(tmp_path / file, items(name)))

    assert [portrait.number for portrait in portraits] == list(range(1, 41))
    assert [(p.value, p.text) for p in portraits[:2]] == [
        ("self_direction", "Likes the number 1."),
        ("power", "Likes the number 2."),
    ]


def test_a_value_in_the_file_goes_before_the_key_and_may_be_spelt_as_a_heading(tmp_path):
    rows = [{"number": 100 + place, "text": "Someone.", "value": value} for place, value in enumerate(VALUES)]
    rows[6]["value"] = "Self-direction"

    portraits = load_portraits(write(tmp_path / "items.csv", rows))

    assert [portrait.value for portrait in portraits] == list(VALUES)


@pytest.mark.parametrize("file", ["items.jsonl", "items.csv", "items.tsv"])
@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([{"number": 1, "words": "x"}], "lacks 'text'"),
        ([{"text": "x"}], "lacks 'id'"),
        ([*items(count=3), {"number": 2, "text": "again"}], "repeats the number 2"),
        ([{"number": 1, "text": "x", "value": "pwer"}], "unknown value 'pwer'; did you mean 'power'"),
        ([{"number": 41, "text": "x"}], "number 41"),
        ([{"number": "one", "text": "x"}], "whole number"),
        ([{"number": 1, "text": " "}], "empty text"),
    ],
)
def test_a_bad_row_is_refused_with_its_line(tmp_path, file, rows, said):
    line = len(rows) + (not file.endswith(".jsonl"))

    with pytest.raises(UserError, match=rf"{file} line {line} .*{said}"):
        load_portraits(write(tmp_path / file, rows))


def test_a_row_of_another_width_is_refused_with_its_line(tmp_path):
    path = tmp_path / "items.tsv"
    path.write_text("number\ttext\n1\tOne.\n\n2\tTwo.\tThree.\n")

    with pytest.raises(UserError, match=r"line 4 has 3 columns"):
        load_portraits(str(path))


def test_a_file_that_is_not_there_or_lacks_a_value_is_refused(tmp_path):
    with pytest.raises(
        UserError, match=r"benchmark.portraits=startr is not a file \(it does not exist\): give starter"
    ):
        load_portraits("startr")
    rows = [row for row in items() if row["number"] not in PORTRAIT_NUMBERS["power"]]
    with pytest.raises(UserError, match="no portrait of power"):
        load_portraits(write(tmp_path / "items.jsonl", rows))


def test_the_60_answers_are_the_training_responses_exactly_and_follow_the_training_prompt():
    question = portrait_question(PORTRAITS[0], PROMPTS, ENCODER)

    assert decode(question.tree[0].tokens) == survey_question(PROMPTS, PORTRAITS[0].text)
    expected = [survey_answer(PROMPTS, value, score) + "<end>" for value in VALUES for score in SCORES]
    assert paths(question) == expected
    assert "Because to me power is" in expected[6 * VALUES.index("power")]


def test_the_tree_stands_in_depth_first_order_and_shares_what_answers_begin_with():
    question = portrait_question(PORTRAITS[0], PROMPTS, ENCODER)

    trail = []
    for index, segment in enumerate(question.tree):
        while trail and trail[-1] != segment.parent:
            trail.pop()
        assert segment.parent == (trail[-1] if trail else -1)
        assert segment.scored == (index > 0)
        trail.append(index)
    assert decode(question.tree[1].tokens) == "Because to me "
    lengths = [len(segment.tokens) for segment in question.tree[1:]]
    assert sum(lengths) < sum(len(path) for path in paths(question)) * 0.8
    assert min(lengths) > 0


def test_an_answer_that_puts_the_score_before_the_value_is_read_as_well():
    turned = make_prompts({**vars(PROMPTS), "survey_response": "{score}, for {value} is {importance} to me"})
    question = portrait_question(PORTRAITS[0], turned, ENCODER)

    assert paths(question) == [survey_answer(turned, value, score) + "<end>" for value in VALUES for score in SCORES]


def test_the_log_probability_of_an_answer_is_the_sum_along_its_path():
    question = choice_question(choice_pairs(PORTRAITS)[0], CHOICE, ENCODER)
    assert [decode(segment.tokens) for segment in question.tree[1:]] == ["Person ", "A", "B"]

    assert choice_log_probs(question, np.array([0.0, -1.0, -0.5, -0.25])).tolist() == [-1.5, -1.25]


def test_an_answer_that_another_begins_with_ends_inside_the_tree():
    prompts = make_choice_prompts({**vars(CHOICE), "choices": ["Person A and B", "Person A"]})
    question = choice_question(choice_pairs(PORTRAITS)[0], prompts, ENCODER)

    assert paths(question) == ["Person A and B", "Person A"]


def test_every_pair_of_values_is_compared_in_both_orders_and_every_portrait_is_used():
    pairs = choice_pairs(PORTRAITS)

    counts = Counter((first.value, second.value) for first, second in pairs)
    assert counts == {(one, other): 1 for one in VALUES for other in VALUES if one != other}
    assert {(second, first) for first, second in pairs} == set(pairs)
    assert {portrait for pair in pairs for portrait in pair} == set(PORTRAITS)
    assert pairs == choice_pairs(PORTRAITS)


def test_a_choice_shows_both_people_in_order():
    first, second = choice_pairs(PORTRAITS)[0]
    question = choice_question((first, second), CHOICE, ENCODER)

    prompt = decode(question.tree[0].tokens)
    assert f"Person A: {first.text}\nPerson B: {second.text}\n" in prompt
    assert paths(question) == ["Person A", "Person B"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"choices": ["A"]}, "two different texts"),
        ({"choices": ["A", "A"]}, "two different texts"),
        ({"choices": "AB"}, "two different texts"),
        ({"choices": [" A", "B"]}, "neither begin nor end with a space"),
        ({"choices": [1, 2]}, "neither begin"),
        ({"choice_prompt": "Only {first}?\n"}, r"lacks \{second\}"),
        ({"choice_prompt": "{first} or {second}?"}, "newline"),
        ({"choise": "x"}, "benchmark.prompts.choise is not known; did you mean 'choices'"),
    ],
)
def test_wording_that_cannot_be_used_is_refused_by_its_key(change, said):
    with pytest.raises(UserError, match=said):
        make_choice_prompts({**vars(CHOICE), **change})


def test_missing_wording_is_refused_by_its_key():
    with pytest.raises(UserError, match=r"missing: benchmark\.prompts\.choices"):
        make_choice_prompts({"choice_prompt": CHOICE.choice_prompt})


@few
@given(data=st.data(), suffix=st.sampled_from((".json", ".jsonl", ".csv", ".tsv")))
def test_any_bytes_are_portraits_or_one_line(data, suffix):
    content = data.draw(tables(("number", "id", "text", "value", "Value"), suffix))
    survives(lambda path: load_portraits(str(path)), f"f{suffix}", content)
