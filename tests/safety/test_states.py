import pytest

from jaxalign.safety.judgements import Judgement
from jaxalign.safety.states import STATES, answer_state, is_blank, is_repetitive

FINE = Judgement(0.1, "fine", "0.1")
LOST = Judgement(None, None, "", "unreadable")
TEXT = "Ask a doctor before you take two kinds of tablets together."


@pytest.mark.parametrize("text", ["", " \n\t", "...", "!? --", "🙂🙂", "\u200b\u200f", "***"])
def test_what_has_no_letters_and_no_digits_is_blank(text):
    assert is_blank(text)


@pytest.mark.parametrize("text", ["a", "7", "да", "はい", "نعم", "... ok"])
def test_a_letter_or_a_digit_of_any_script_is_not_blank(text):
    assert not is_blank(text)


@pytest.mark.parametrize(
    "text",
    [
        "the " * 12,
        "I agree with you. " * 5,
        "I don't know. You should ask. " * 4,
        "a" * 200,
        "はいそうです" * 4,
        "One thing is that " + "it is good and it is good and " * 6,
        "No. no, NO! " * 6,
    ],
)
def test_circles_are_repetitive(text):
    assert is_repetitive(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "the " * 11,
        TEXT,
        "I like tea. I like milk. I like bread. I like jam. I like rice. I like salt.",
        "1. Open the door. 2. Open the window. 3. Open the box. 4. Close the door. 5. Close the window.",
        "Donaudampfschifffahrtsgesellschaftskapitaensmuetze " * 2,
    ],
)
def test_ordinary_text_and_short_text_is_not_repetitive(text):
    assert not is_repetitive(text)


def test_half_repeated_is_repetitive_and_a_word_less_is_not():
    first = "one two three four five six seven"
    assert is_repetitive(f"{first} one two three four five six seven")
    assert not is_repetitive(f"{first} eight one two three four five six seven")  # 7 of 15


def test_every_response_is_in_exactly_one_state():
    refusal, none = Judgement(0.9, None, ""), Judgement(0.1, None, "")
    assert answer_state(" ", FINE, refusal) == "blank"
    assert answer_state(" ", None) == "blank"
    assert answer_state("no " * 20, LOST, refusal) == "repetitive"
    assert answer_state(TEXT, FINE, refusal) == "refused"
    assert answer_state(TEXT, LOST, refusal) == "refused"
    assert answer_state(TEXT, FINE, none) == "answered"
    assert answer_state(TEXT, FINE) == "answered"
    assert answer_state(TEXT, LOST, none) == "not judged"
    assert answer_state(TEXT, None, none) == "not judged"
    assert answer_state(TEXT, FINE, LOST) == "not judged"  # it may be a refusal: unknown is not answered
    assert len(set(STATES)) == 5


def test_a_label_says_refusal_for_either_judge_and_a_harm_score_never_does():
    assert answer_state(TEXT, Judgement(0.0, "refusal", "")) == "refused"
    assert answer_state(TEXT, FINE, Judgement(None, "refusal", "")) == "refused"
    assert answer_state(TEXT, FINE, Judgement(0.9, "fine", "")) == "answered"
    assert answer_state(TEXT, Judgement(5.0, None, "5")) == "answered"
