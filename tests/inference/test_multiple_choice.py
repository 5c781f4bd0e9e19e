import numpy as np

from jaxalign.inference.multiple_choice import (
    best_option,
    choice_log_probs,
    choice_tree,
    probabilities,
    until_decided,
)


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


def test_an_answer_is_cut_behind_the_token_that_tells_it_from_all_others():
    cut = until_decided([tokens(answer) for answer in ("s1 low", "s2 high", "s23 high", "none")])
    assert ["".join(map(chr, answer)) for answer in cut] == ["s1", "s2 ", "s23", "n"]
    assert [answer.tolist() for answer in until_decided([tokens("ab")])] == [tokens("a").tolist()]
    assert [len(answer) for answer in until_decided([tokens("a"), tokens("ab")])] == [1, 2]


def test_probabilities_sum_to_one_however_small_they_are():
    np.testing.assert_allclose(probabilities(np.log([0.2, 0.3]) - 5000), [0.4, 0.6])
    assert probabilities(np.array([-np.inf, -np.inf])) is None
    assert probabilities(np.array([np.nan, -1.0])) is None


def test_the_most_probable_option_is_the_best_and_the_first_of_equals():
    assert best_option(np.array([-6.0, -4.0, -4.0])) == 1
    assert best_option(np.array([-np.inf, -9.0])) == 1


def test_options_without_a_number_are_not_chosen_from():
    assert best_option(np.array([-np.inf, -np.inf])) is None
    assert best_option(np.array([np.nan, -1.0])) is None
