import dataclasses

import numpy as np
import pytest
from reasoning.few_questions import FIVE, THREE, WORDING, rationale
from tiny_model import CONFIG, random_adapter, random_weights

from jaxalign.data.encoding import Encoder
from jaxalign.data.trees import Segment
from jaxalign.inference.scorer import Scorer
from jaxalign.models.architecture import from_config
from jaxalign.models.transformer import Transformer
from jaxalign.parallel.compilation import Programs
from jaxalign.reasoning.followups import judged, read_followups
from jaxalign.reasoning.rationales import (
    Rationale,
    answer_tree,
    distinct,
    majority,
    read_answers,
    read_response,
    relabel,
)
from jaxalign.reasoning.released import letter_anywhere
from jaxalign.reasoning.wording import read_letter


@pytest.mark.parametrize(
    ("text", "letter"),
    [
        (" Choice D", "D"),
        ("Both A and C", None),
        ("", None),
        ("nothing of the kind", None),
        ("Albert said it", None),
        ("A dog barks", None),
        ("A", "A"),
        ("(B) that", "B"),
        ("B. that", "B"),
        ("The answer is (c), not B", "C"),
        ("the answer is: option A, or B?", "A"),
        ("First the answer is A; no, the answer is B", "B"),
        ("It's D", "D"),
        ("E", None),
        ("C and C again", "C"),
        ("The answer is a metal spoon.", None),
        ("The answer is a form of energy, so (B)", "B"),
        ("the answer is a", "A"),
        ("The answer is a.", "A"),
        ("the answer is b, because of c", "B"),
        ("the answer is (a) metal", "A"),
        ("the answer is 'd'", "D"),
        ("the answer is (a metal spoon)", None),
        ("the answer is d.c. current", None),
        ("THE ANSWER IS OPTION D", "D"),
        ("The answer is A and B", None),
        ("The answer is (A) or (B).", None),
        ("The answer is (a) and (c)", None),
        ("The answer is A, B and C", None),
        ("The answer is A, B, and/or C", None),
        ("The answer is A/C", None),
        ("The answer is C and C again", "C"),
        ("The answer is A; no, it is both: the answer is A and C", None),
        ("The answer is B and I am sure", "B"),
        ("The answer is B and a half", "B"),
        ("The answer is C, and the others are wrong", "C"),
        ("The answer is not A.", None),
        ("It is not A but B", "B"),
    ],
)
def test_the_reading_table(text, letter):
    assert read_letter(text, "ABCD") == (None if letter is None else "ABCD".index(letter))


def test_the_released_reading_finds_letters_inside_words():
    assert letter_anywhere(" Choice D", "ABCD") == 2
    assert letter_anywhere("no", "ABCD") == 0


def test_a_response_is_read_behind_its_last_marker():
    assert read_response("So.\nAnswer: (B)\n(C)", THREE, WORDING) == ("So.", 1, True)
    assert read_response("Answer: A?\nAnswer: C", THREE, WORDING) == ("Answer: A?", 2, True)
    assert read_response("It is (B).", THREE, WORDING) == ("It is (B).", None, False)
    assert read_response("So.\nAnswer: both", THREE, WORDING) == ("So.", None, True)


def test_duplicates_are_merged_and_counted():
    texts = ["so", "thus", " so\n", ""]
    merged = distinct(THREE, texts)
    assert [(one.text, one.copies) for one in merged] == [("so", 2), ("thus", 1), ("", 1)]


def test_the_majority_of_the_samples_is_the_label():
    mine = [rationale("a", True, copies=3), rationale("b", False, copies=2), rationale("c", None)]
    found, label = relabel(mine)
    assert label == 1 and [one.right for one in found] == [True, False, None]
    assert relabel([rationale("c", None)]) == ([rationale("c", None)], None)
    assert majority([2, None, 1, 2]) == 2 and majority([1, 0]) == 0 and majority([None]) is None


@pytest.fixture(scope="module")
def scorer():
    architecture = from_config(CONFIG | {"vocab_size": 260})
    model = Transformer(architecture, np.float32)
    adapter = random_adapter(architecture=architecture)
    return Scorer(model, random_weights(architecture), adapter, 1.0, Programs(), 2048)


@pytest.mark.slow
def test_readings_off_trees_are_those_of_each_prompt_alone(scorer, tokenizer):
    encoder = Encoder(tokenizer)
    questions = [THREE, FIVE]
    given = [
        [Rationale("three", text, 1) for text in ("It is that.", "", "Neither of them, it seems.")],
        [Rationale("five", text, 2) for text in ("The cat sat by it.", "It is under.")],
    ]
    read = read_answers(scorer, questions, given, encoder, WORDING)
    read = read_followups(scorer, questions, read, [1, 4], encoder, WORDING, everyone=True)
    assert read[0][1].prediction is None and read[0][1].right is None and read[0][1].followups == ()

    def alone(*texts, scored):
        segments = [Segment(encoder.prompt(texts[0]), -1)]
        segments += [Segment(encoder.text(text), place) for place, text in enumerate(texts[1:])]
        tree = (*segments, Segment(encoder.text(scored), len(segments) - 1, True))
        return scorer.score([tree])[0][-1]

    for question, mine, label in zip(questions, read, (1, 4), strict=True):
        for one in (one for one in mine if one.text):
            lead = (WORDING.prompt(question), f"{one.text}\n", WORDING.marker)
            options = [alone(*lead, scored=WORDING.answer(question, n)) for n in range(len(question.options))]
            np.testing.assert_allclose(one.options, options, atol=1e-4)
            assert one.prediction == int(np.argmax(options)) and one.right == (one.prediction == label)
            agreed = 0
            for option in range(len(question.options)):
                lead = (WORDING.ask(question, option), f"{one.text}\n", WORDING.close(question, option))
                pair = [alone(*lead, scored=verdict) for verdict in (WORDING.affirm, WORDING.deny)]
                np.testing.assert_allclose(one.followups[option], pair, atol=1e-4)
                agreed += (pair[0] > pair[1]) == (option == label)
            assert one.agreed == agreed
    assert Rationale.of_record(read[1][0].record(FIVE.letters), FIVE.letters) == read[1][0]


def test_an_option_that_begins_another_is_read_to_its_end(scorer, tokenizer):
    encoder, texts = Encoder(tokenizer), dataclasses.replace(WORDING, reply="{text}")
    short = dataclasses.replace(THREE, options=("dog and cat", "dog", "cow"))
    (read,) = read_answers(scorer, [short], [[Rationale("three", "So.", 1)]], encoder, texts)
    lead = [encoder.prompt(texts.prompt(short)), encoder.text("So.\n"), encoder.text(texts.marker)]
    trunk = [Segment(tokens, place - 1) for place, tokens in enumerate(lead)]
    answers = [np.append(encoder.text(f" {text}"), tokenizer.eos_id).astype(np.int32) for text in short.options]
    expected = [scorer.score([(*trunk, Segment(answer, 2, True))])[0][-1] for answer in answers]
    np.testing.assert_allclose(read[0].options, expected, atol=1e-4)
    for question, wording in ((THREE, texts), (short, WORDING)):  # where none begins another, it would only cost
        tree, _ = answer_tree(question, [Rationale("three", "So.", 1)], encoder, wording)
        assert all(tokenizer.eos_id not in segment.tokens for segment in tree)


def test_only_right_rationales_are_asked_about(scorer, tokenizer):
    mine = [rationale("so", True), rationale("so so", False), rationale("", None)]
    (read,) = read_followups(scorer, [THREE], [mine], [1], Encoder(tokenizer), WORDING)
    assert [len(one.followups) for one in read] == [3, 0, 0] and read[1:] == mine[1:]


def test_a_follow_up_is_judged_by_the_likelier_completion():
    one = judged(rationale("so", True), [(-2.0, -1.0), (-1.0, -2.0), (-1.0, -1.0)], 1)
    assert one.agreed == 3
    assert judged(one, [(-1.0, -2.0)] * 3, 1).agreed == 1
    assert judged(one, [(-2.0, -1.0)] * 3, 1).agreed == 2
    assert dataclasses.replace(one, followups=()).followups == ()
