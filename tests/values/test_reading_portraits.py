"""What is read of a model that answers the questions about the portraits."""

import json

import numpy as np
import pytest
from values.few_portraits import CHOICE, ENCODER, PORTRAITS, PROMPTS, decode

from jaxalign.values.injection import survey_answer, survey_question
from jaxalign.values.portraits import PORTRAIT_NUMBERS, SCORES, all_questions, read_questionnaire
from jaxalign.values.schwartz import VALUES
from jaxalign.values.targets import extreme_targets

POWER = extreme_targets()["power"].scores


class Model:
    """A scorer that knows the probability of every answer, and spreads it over the segments of a tree.

    A segment gets the share that the answers below it have of those below its parent, as a language model that gives
    everything else no probability would.
    """

    def __init__(self, probability):
        self.probability = probability

    def __call__(self, trees):
        return [self.read(tree) for tree in trees]

    def read(self, tree):
        leaves = set(range(1, len(tree))) - {segment.parent for segment in tree}
        mass = np.zeros(len(tree))
        for leaf in leaves:
            path, node = [], leaf
            while node >= 0:
                path.append(node)
                node = tree[node].parent
            text = "".join(decode(tree[index].tokens) for index in reversed(path[:-1]))
            mass[path] += self.probability(decode(tree[0].tokens), text)
        with np.errstate(divide="ignore", invalid="ignore"):
            steps = [np.log(mass[index] / mass[segment.parent]) for index, segment in enumerate(tree) if index]
        return np.nan_to_num(np.array([0.0, *steps]), nan=-np.inf)


def table(distribution):
    """A probability by (value, score) as one of (prompt, answer); choices are even."""
    answers = {survey_answer(PROMPTS, value, score) + "<end>": (value, score) for value in VALUES for score in SCORES}

    def probability(prompt, answer):
        return distribution(prompt, *answers[answer]) if answer in answers else 0.5

    return Model(probability)


def read(score, target=POWER, choice=CHOICE, portraits=PORTRAITS):
    questions = all_questions(portraits, PROMPTS, choice, ENCODER)
    return read_questionnaire(portraits, questions, score([question.tree for question in questions]), target)


def test_the_expected_score_sums_over_the_named_values():
    # The right value has the most probability; the scores of the others count all the same.
    def distribution(_, value, score):
        if value == "power":
            return {6: 0.4, 1: 0.1}.get(score, 0.0)
        return {2: 0.3}.get(score, 0.0) if value == "security" else {1: 0.2}.get(score, 0.0) * (value == "tradition")

    reading = read(table(distribution))

    assert reading["scores"]["power"] == pytest.approx(6 * 0.4 + 1 * 0.1 + 2 * 0.3 + 1 * 0.2)
    assert set(reading["argmax_scores"].values()) == {6.0}
    assert reading["named_value_accuracy"] == pytest.approx(3 / 40)
    assert reading["missing"] == 0


def test_probabilities_are_normalised_over_the_60_answers():
    def few(trees):
        return [scores - 100 * (np.arange(len(scores)) == 1) for scores in table(lambda *_: 1 / 60)(trees)]

    reading = read(few)

    assert reading["scores"] == pytest.approx(dict.fromkeys(VALUES, 3.5))
    assert all(chance == pytest.approx(0.5) for chance in reading["choice_scores"].values())


def test_a_model_that_took_the_value_fits_and_names_the_right_values():
    value_of = {survey_question(PROMPTS, portrait.text): portrait.value for portrait in PORTRAITS}

    def distribution(prompt, value, score):
        held = value_of[prompt]
        return 1.0 * (value == held and score == (6 if held == "power" else 1))

    reading = read(table(distribution))

    assert reading["scores"] == pytest.approx({value: 6.0 if value == "power" else 1.0 for value in VALUES})
    assert reading["nmse"] == pytest.approx(0)
    assert (reading["pearson"], reading["spearman"]) == (pytest.approx(1), pytest.approx(1))
    assert reading["named_value_accuracy"] == 1


def test_answering_2_to_everything_has_an_error_but_no_profile():
    reading = read(table(lambda prompt, value, score: 0.1 * (score == 2)))

    assert reading["nmse"] == pytest.approx(0.1)
    assert (reading["pearson"], reading["spearman"]) == (None, None)


def test_without_a_target_the_scores_are_read_and_the_fit_is_null():
    reading = read(table(lambda *_: 1 / 60), target=None)

    assert reading["scores"]["power"] == pytest.approx(3.5)
    assert [reading[name] for name in ("nmse", "nmse_centred", "pearson", "spearman")] == [None] * 4


def test_a_portrait_without_finite_log_probabilities_is_missing_and_the_others_count():
    even = table(lambda *_: 1 / 60)

    def score(trees):
        results = even(trees)
        results[1][:] = np.nan  # number 2, power's
        for number in PORTRAIT_NUMBERS["hedonism"]:
            results[number - 1][1:] = -np.inf
        return results

    reading = read(score)

    assert reading["missing"] == 4
    assert reading["scores"]["power"] == pytest.approx(3.5)
    assert reading["scores"]["hedonism"] is None
    assert reading["nmse"] is None


def test_a_reading_is_plain_json():
    reading = read(table(lambda *_: 1 / 60))

    assert json.loads(json.dumps(reading)) == reading


def chooser(probability_of_first):
    def probability(prompt, answer):
        if not answer.startswith("Person"):
            return 1 / 60
        chance = probability_of_first(prompt)
        return chance if answer == "Person A" else 1 - chance

    return Model(probability)


def test_a_model_that_always_takes_the_first_person_prefers_no_value():
    reading = read(chooser(lambda prompt: 1.0))

    assert reading["choice_scores"] == dict.fromkeys(VALUES, 0.5)


def test_a_model_that_prefers_one_value_scores_it_1_and_the_others_what_is_left():
    texts = [portrait.text for portrait in PORTRAITS if portrait.value == "power"]

    def probability(prompt):
        shown = [place for place, line in enumerate(prompt.splitlines()) if any(text in line for text in texts)]
        return {(): 0.5, (1,): 1.0, (2,): 0.0}[tuple(shown)]

    scores = read(chooser(probability))["choice_scores"]

    assert scores["power"] == 1
    assert scores["security"] == pytest.approx((16 * 0.5 + 2 * 0) / 18)
    assert np.mean(list(scores.values())) == pytest.approx(0.5)


def test_a_comparison_that_cannot_be_read_leaves_both_its_values_unread():
    even = table(lambda *_: 1 / 60)

    def score(trees):
        results = even(trees)
        results[40][:] = np.nan
        return results

    scores = read(score)["choice_scores"]

    assert [value for value, chance in scores.items() if chance is None] == list(VALUES[:2])


def test_without_the_choice_nothing_of_it_is_asked():
    asked = []

    def score(trees):
        asked.extend(trees)
        return table(lambda *_: 1 / 60)(trees)

    assert read(score, choice=None)["choice_scores"] is None
    assert len(asked) == 40
