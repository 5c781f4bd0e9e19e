import dataclasses

import numpy as np
import pytest
from reasoning.few_questions import EXAMPLE, FIVE, TEXTS, THREE, WORDING

from jaxalign.data.encoding import Encoder
from jaxalign.errors import UserError
from jaxalign.reasoning.wording import make_wording


def test_a_prompt_names_the_options_and_leaves_out_an_empty_passage():
    prompt = WORDING.prompt(THREE)
    assert "(B) that\n" in prompt and prompt.endswith("\n") and not prompt.startswith("\n")
    assert WORDING.prompt(FIVE).startswith("A cat sat.\n")
    assert "(B: that)" not in prompt and "B: that" in WORDING.prompt(THREE, hint=True)


def test_a_follow_up_begins_as_the_question_does_and_asks_about_an_option_by_its_text_alone():
    asked, question = WORDING.ask(THREE, 2), WORDING.prompt(THREE)
    shared = question[: question.index("Reasoning:")]
    assert asked.startswith(shared)
    assert "neither" in asked[len(shared) :] and not any(f"({letter})" in asked[len(shared) :] for letter in "ABC")
    assert "neither" in WORDING.close(THREE, 2)


def test_worked_examples_look_like_what_is_asked():
    assert WORDING.preamble().startswith(WORDING.prompt(WORDING.shots[0].question))
    assert "It is two.\nAnswer: (A)\n\n" in WORDING.preamble()


def test_the_pieces_of_a_response_are_the_tokens_of_the_whole(tokenizer):
    encoder = Encoder(tokenizer)
    prompt = WORDING.prompt(THREE)
    _, (whole,) = encoder.branches(prompt, [WORDING.response(THREE, "So that.", 1)], end=True)
    lead, (answer,) = encoder.branches(prompt, [WORDING.answer(THREE, 1)], f"So that.\n{WORDING.marker}", end=True)
    np.testing.assert_array_equal([*encoder.prompt(prompt), *whole], [*lead, *answer])
    assert whole[-1] == tokenizer.eos_id


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"question": "Reasoning:\n"}, "reasoning.question lacks"),
        ({"followup": "{passage}{question}{options}{option}"}, "must end in a newline"),
        ({"affirm": "right."}, "must begin with a space"),
        ({"deny": TEXTS["affirm"]}, "are the same"),
        ({"marker": "Answer: "}, "reasoning.marker"),
        ({"other": "x"}, "reasoning.other is not known"),
    ],
)
def test_a_wording_that_will_not_do_is_named(changes, words):
    with pytest.raises(UserError, match="reasoning") as error:
        make_wording(TEXTS | changes, "({letter})", [])
    assert words in str(error.value)


def test_an_example_that_will_not_do_is_named():
    with pytest.raises(UserError, match=r"dataset\.examples\[1\]\.answer=C must be one of A, B"):
        make_wording(TEXTS, "({letter})", [EXAMPLE, EXAMPLE | {"answer": "C"}])
    with pytest.raises(UserError, match=r"dataset\.examples\[0\]\.rationale"):
        make_wording(TEXTS, "({letter})", [{key: value for key, value in EXAMPLE.items() if key != "rationale"}])


def test_a_reply_is_read_as_it_was_asked_for():
    texts = make_wording(TEXTS, "{text}", [])
    assert texts.answer(THREE, 2) == " neither"
    assert texts.read(" Neither.\nQuestion", THREE) == 2
    assert texts.read(" (B)", THREE) is None and texts.read(" neither of them", THREE) is None
    genes = dataclasses.replace(THREE, options=("only SS", "only Ss", "none"))
    assert texts.read(" only Ss\n", genes) == 1 and texts.read(" Only ss.", genes) == 0
    assert WORDING.read(" (B) that", THREE) == 1 and WORDING.read("", THREE) is None
    both = make_wording(TEXTS, "({letter}) {text}", [])
    assert both.read("(C) neither", THREE) == both.read("C", THREE) == 2
    with pytest.raises(UserError, match=r"dataset\.reply"):
        make_wording(TEXTS, "yes", [])


@pytest.mark.parametrize("change", [{"rationale": None}, {"question": True}, {"options": [True, False]}])
def test_a_worked_example_that_yaml_takes_for_something_else_is_refused(change):
    words = rf"dataset.examples\[0\]\.{next(iter(change))} holds .*, which is no text: put the text in quotes"
    with pytest.raises(UserError, match=words):
        make_wording(TEXTS, "({letter})", [EXAMPLE | {"answer": "A"} | change])
    assert make_wording(TEXTS, "({letter})", [EXAMPLE | {"passage": None}]).shots[0].question.passage == ""
