import numpy as np
import pytest

from jaxalign.errors import UserError
from jaxalign.inference.multiple_choice import best_option, choice_log_probs, choice_tree, probabilities


def tokens(text):
    return np.array([ord(letter) for letter in text], np.int32)


def test_what_answers_begin_with_alike_is_there_once_and_each_answer_is_its_path():
    answers = ["power 1", "power 2", "peace", "power", "power 1"]
    tree, ends = choice_tree(tokens("Q:"), [tokens(answer) for answer in answers])
    texts = ["".join(chr(token) for token in segment.tokens) for segment in tree]
    assert texts == ["Q:", "p", "eace", "ower", " ", "1", "2"]
    assert [segment.parent for segment in tree] == [-1, 0, 1, 1, 3, 4, 4]
    assert [segment.scored for segment in tree] == [False] + [True] * 6
    assert [texts[end] for end in ends] == ["1", "2", "eace", "ower", "1"]


def test_an_answer_scores_the_sum_along_its_path():
    question = choice_tree(tokens("Q:"), [tokens(answer) for answer in ("ab", "ac", "a")])
    scores = -np.arange(len(question.tree), dtype=np.float64)  # prompt, a, b, c
    assert choice_log_probs(question, scores).tolist() == [-3.0, -4.0, -1.0]


def test_probabilities_sum_to_one_however_small_they_are():
    np.testing.assert_allclose(probabilities(np.log([0.2, 0.3]) - 5000), [0.4, 0.6])
    assert probabilities(np.array([-np.inf, -np.inf])) is None
    assert probabilities(np.array([np.nan, -1.0])) is None


def test_the_length_rule_decides_between_a_short_and_a_long_option():
    assert best_option([-4.0, -6.0], [1, 3], "sum") == 0
    assert best_option([-4.0, -6.0], [1, 3], "token") == 1
    assert best_option([-4.0, -6.0], [4, 5], "byte") == 0
    assert best_option([-4.0, -4.0], [1, 1], "token") == 0


def test_options_without_a_number_are_not_chosen_from():
    assert best_option([-np.inf, -np.inf], [1, 1], "token") is None
    assert best_option([np.nan, -1.0], [1, 1], "sum") is None
    assert best_option([-np.inf, -9.0], [1, 1], "byte") == 1


def test_an_unknown_length_rule_names_the_known_ones():
    with pytest.raises(UserError, match="'tokens'; did you mean 'token'"):
        best_option([-1.0], [1], "tokens")
    with pytest.raises(ValueError, match="the length 0"):
        best_option([-1.0, -2.0], [1, 0], "byte")
