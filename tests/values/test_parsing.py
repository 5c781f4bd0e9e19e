import pytest
from values.few_portraits import PROMPTS

from jaxalign.values.injection import survey_answer
from jaxalign.values.parsing import parse_score, read_texts, stated_answer
from jaxalign.values.portraits import SCORES, load_portraits
from jaxalign.values.schwartz import VALUES

STATED = stated_answer(PROMPTS)


@pytest.mark.parametrize("value", VALUES)
def test_every_trained_answer_is_read_as_the_score_it_states(value):
    assert [parse_score(survey_answer(PROMPTS, value, score), STATED) for score in SCORES] == list(SCORES)


@pytest.mark.parametrize(
    ("text", "score"),
    [
        ("I have 2 reasons. " + survey_answer(PROMPTS, "power", 5), 5),  # what is stated goes before what stands first
        ("4", 4),
        ("My answer is 4.", 4),
        ("(3) partly", 3),
        ("6/6", 6),
        ("7", None),
        ("0", None),
        ("10 or 3", 3),
        ("16", None),
        ("3.5", None),
        ("1,000 people", None),
        ("5% of 2", 2),
        ("six", None),
        ("", None),
    ],
)
def test_a_score_is_a_digit_that_stands_alone(text, score):
    assert parse_score(text, STATED) == score


def test_what_gives_no_score_is_counted_and_left_out_of_the_means():
    portraits = load_portraits("starter")
    texts = ["2" if portrait.value != "power" else "" for portrait in portraits]
    first = next(number for number, portrait in enumerate(portraits) if portrait.value == "security")
    texts[first] = "no idea"
    reading = read_texts(portraits, texts, PROMPTS, [1.0] * 10)
    assert reading["missing"] == 1 + sum(portrait.value == "power" for portrait in portraits)
    assert reading["scores"]["power"] is None and reading["scores"]["security"] == 2
    assert reading["nmse"] is None  # not all ten values were read
