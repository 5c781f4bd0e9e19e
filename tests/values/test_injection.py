import json
import os
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from jaxalign.data.templates import fill_template, uncapitalised
from jaxalign.errors import UserError
from jaxalign.values.injection import (
    argument_examples,
    balancing_weights,
    make_prompts,
    shift_labels,
    shuffle_labels,
    split_arguments,
    survey_answer,
    survey_examples,
    survey_question,
)
from jaxalign.values.schwartz import VALUES
from jaxalign.values.starter import load_starter
from jaxalign.values.targets import Target, extreme_targets
from jaxalign.values.touche import Argument

TEXTS = OmegaConf.to_container(
    OmegaConf.load(Path(__file__).parents[2] / "conf" / "alignment" / "injection.yaml").prompts
)
PROMPTS = make_prompts(TEXTS)
POWER = extreme_targets()["power"]


def argument(id="A1", conclusion="We should ban X", stance="in favor of", premise="It costs jobs", values=("power",)):
    return Argument(id, conclusion, stance, premise, values)


def flat(score):
    return Target("flat", (score,) * 10)


# Wording


def test_a_positive_argument_is_what_the_person_would_say():
    (example,) = argument_examples([argument()], POWER, PROMPTS)
    assert example.positive is True
    assert example.prompt == "Topic: We should ban X.\nWhat is something you would say about it?\n"
    assert example.response == 'I would say: "I agree, for this reason: It costs jobs."'
    assert example.id == "A1"


def test_what_may_be_shortened_is_the_premise_as_the_example_has_it():
    one = argument(premise="The poor pay for it")
    (first,) = argument_examples([one], POWER, PROMPTS)
    (second,) = survey_examples([one], POWER, PROMPTS, seed=0)
    assert first.shorten == second.shorten == "The poor pay for it"
    assert first.shorten in first.response
    assert second.shorten in second.prompt
    lowering = replace(PROMPTS, survey_statement="I {agree} that {conclusion}, since {premise}.")
    (lowered,) = survey_examples([one], POWER, lowering, seed=0)
    assert lowered.shorten == "the poor pay for it"
    assert lowered.shorten in lowered.prompt


def test_a_negative_argument_keeps_its_stance():
    (example,) = argument_examples([argument(stance="against", values=("security",))], POWER, PROMPTS)
    assert example.positive is False
    assert example.prompt.endswith("\nWhat is something you would not say about it?\n")
    assert example.response == 'I would not say: "I disagree, for this reason: It costs jobs."'


def test_one_unimportant_value_makes_an_argument_negative():
    (example,) = argument_examples([argument(values=("power", "security"))], POWER, PROMPTS)
    assert example.positive is False


@pytest.mark.parametrize(("score", "positive"), [(2.9, False), (3.0, True)])
def test_an_argument_is_positive_from_three_on(score, positive):
    assert argument_examples([argument()], flat(score), PROMPTS)[0].positive is positive


def test_a_survey_example_names_the_value_before_the_score():
    (example,) = survey_examples([argument(stance="against")], POWER, PROMPTS, seed=0)
    assert example.prompt.endswith("Statement: I disagree that we should ban X: It costs jobs.\n")
    assert example.prompt.count("\n") == 8
    assert example.response == "Because to me power is very important: 6"
    assert example.id == "A1/power"


def test_the_survey_examples_of_one_argument_share_its_prompt_and_stand_together():
    examples = survey_examples([argument(values=("power", "security")), argument("A2")], POWER, PROMPTS, seed=0)
    assert [example.id for example in examples] == ["A1/power", "A1/security", "A2/power"]
    assert examples[0].prompt == examples[1].prompt
    assert examples[1].response == "Because to me security is not important at all: 1"


def test_texts_can_be_cut_where_the_response_begins():
    examples = [
        *argument_examples(load_starter(20), POWER, PROMPTS),
        *survey_examples(load_starter(20), POWER, PROMPTS, seed=0),
    ]
    assert all(example.prompt.endswith("\n") for example in examples)
    assert all(example.response == example.response.strip() for example in examples)
    assert not any(".." in example.prompt + example.response for example in examples)


def test_the_sixty_answers_of_the_questionnaire_differ():
    assert len({survey_answer(PROMPTS, value, score) for value in VALUES for score in range(1, 7)}) == 60


def test_a_portrait_takes_the_place_of_the_statement():
    assert survey_question(PROMPTS, "She likes order.").endswith("6: exactly like me\nStatement: She likes order.\n")


@pytest.mark.parametrize(
    ("sentence", "inside"),
    [
        ("We should vote", "we should vote"),
        ("A gifted child", "a gifted child"),
        ("It's time", "it's time"),
        ("I will not", "I will not"),
        ("IT recruiters", "IT recruiters"),
        ("EU citizens", "EU citizens"),
        ("Donald should", "Donald should"),
        ("5G is here", "5G is here"),
    ],
)
def test_only_a_plain_first_word_loses_its_capital(sentence, inside):
    assert uncapitalised(sentence) == inside


def test_a_full_stop_does_not_follow_another_mark():
    assert fill_template("I agree that {claim}.", claim="We must act!") == "I agree that we must act!"
    assert fill_template('"{claim}."', claim='He said "no."') == '"He said "no.""'


@pytest.mark.parametrize(
    ("key", "text", "line"),
    [
        ("argument_prompt", "Topic: {conclusion}\n", "alignment.prompts.argument_prompt lacks {would}"),
        ("argument_prompt", "{would} {conclusion}", "alignment.prompts.argument_prompt must end in a newline"),
        ("argument_response", " {would} {agree} {premise}", "alignment.prompts.argument_response must not begin"),
        ("survey_statement", "{agre} {conclusion} {premise}", "unknown field {agre}; did you mean 'agree'?"),
        ("survey_response", "{value} {importance} {score:d}", "survey_response formats a field"),
        ("survey_response", "{value.__class__} {importance} {score}", "unknown field {value.__class__}"),
        ("survey_response", "{value", "survey_response has a brace that does not pair"),
        ("survey_response", None, "survey_response must be a text"),
        ("importance", ["low", "high"], "alignment.prompts.importance must be a list of six texts"),
        ("scale", ["same"] * 6, "alignment.prompts.scale repeats a text"),
        ("scales", [], "alignment.prompts.scales is not known; did you mean 'scale'?"),
    ],
)
def test_bad_wording_is_refused_by_its_key(key, text, line):
    with pytest.raises(UserError) as error:
        make_prompts({**TEXTS, key: text})
    assert line in str(error.value)


def test_missing_wording_is_reported_together():
    with pytest.raises(UserError, match=r"missing: alignment.prompts.importance, alignment.prompts.scale"):
        make_prompts({key: text for key, text in TEXTS.items() if key not in ("scale", "importance")})


# The draw of scores


def test_scores_are_rounded_up_as_often_as_their_fraction_says():
    arguments = [argument(f"A{number}") for number in range(4000)]
    scores = Counter(example.response[-1] for example in survey_examples(arguments, flat(4.25), PROMPTS, seed=0))
    assert set(scores) == {"4", "5"}
    assert scores["5"] / 4000 == pytest.approx(0.25, abs=0.03)


def test_a_whole_score_is_never_rounded():
    arguments = [argument(f"A{number}") for number in range(200)]
    for score in (1, 6):
        responses = {
            example.response[-1] for example in survey_examples(arguments, flat(float(score)), PROMPTS, seed=1)
        }
        assert responses == {str(score)}


def test_the_draw_depends_on_the_seed_and_the_row_and_not_on_the_order():
    arguments = [argument(f"A{number}", values=("power", "security")) for number in range(50)]
    drawn = {example.id: example.response for example in survey_examples(arguments, flat(3.5), PROMPTS, seed=0)}
    again = {example.id: example.response for example in survey_examples(arguments[::-1], flat(3.5), PROMPTS, seed=0)}
    other = {example.id: example.response for example in survey_examples(arguments, flat(3.5), PROMPTS, seed=1)}
    assert drawn == again
    assert drawn != other
    assert {drawn[f"A{n}/power"][-1] == drawn[f"A{n}/security"][-1] for n in range(50)} == {True, False}


def test_splits_and_draws_do_not_depend_on_the_hash_seed():
    program = (
        "import json\n"
        "from jaxalign.values.starter import load_starter\n"
        "from jaxalign.values.injection import shuffle_labels, split_arguments\n"
        "train, validation = split_arguments(load_starter(60), 3, 0.2)\n"
        "print(json.dumps([[a.id, a.values] for a in [*validation, *shuffle_labels(train, 3)]]))"
    )

    def run(hash_seed):
        environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
        return json.loads(subprocess.check_output([sys.executable, "-c", program], env=environment, text=True))

    assert run("1") == run("2")


# Splits


def test_one_seeded_split_without_an_argument_on_both_sides():
    arguments = load_starter()
    train, validation = split_arguments(arguments, 0, 0.1)
    assert len(validation) == round(0.1 * len(arguments))
    assert {a.id for a in train} | {a.id for a in validation} == {a.id for a in arguments}
    assert not {a.id for a in train} & {a.id for a in validation}
    assert split_arguments(arguments, 0, 0.1) == (train, validation)
    assert split_arguments(arguments, 1, 0.1) != (train, validation)


def test_copies_that_differ_in_case_and_spaces_are_dropped_before_the_split():
    rows = [argument("A1"), argument("A2", premise="it  COSTS jobs"), argument("A3", stance="against")]
    train, validation = split_arguments(rows, 0, 0.1)
    assert sorted(a.id for a in [*train, *validation]) == ["A1", "A3"]


def test_a_split_of_two_trains_on_one_and_validates_on_one():
    for fraction in (0.01, 0.99):
        train, validation = split_arguments([argument("A1"), argument("A2", premise="Other")], 0, fraction)
        assert len(train) == len(validation) == 1


def test_what_cannot_be_split_is_refused():
    with pytest.raises(UserError, match="have one prompt, which stays on one side of the split"):
        split_arguments([argument("A1"), argument("A2")], 0, 0.1)
    with pytest.raises(UserError, match=r"alignment.validation_fraction=1"):
        split_arguments([argument("A1"), argument("A2", premise="Other")], 0, 1)


# Controls, reproduction, balance


def test_the_released_shift_gives_each_value_its_left_neighbours_flag():
    rows = [
        argument("A1", values=("achievement", "hedonism")),
        argument("A2", values=("universalism",)),
        argument("A3", values=("tradition", "universalism")),
    ]
    assert [a.values for a in shift_labels(rows)] == [("benevolence", "power"), (), ("universalism",)]


def test_the_released_shift_never_trains_achievement_in_the_survey():
    arguments = load_starter()
    shifted = survey_examples(shift_labels(arguments), POWER, PROMPTS, seed=0)
    assert not any(example.id.endswith("/achievement") for example in shifted)
    assert any(example.id.endswith("/achievement") for example in survey_examples(arguments, POWER, PROMPTS, seed=0))


def test_shuffled_labels_keep_every_set_of_values_and_lose_its_argument():
    arguments = load_starter()
    shuffled = shuffle_labels(arguments, 0)
    assert Counter(a.values for a in shuffled) == Counter(a.values for a in arguments)
    assert [replace(a, values=()) for a in shuffled] == [replace(a, values=()) for a in arguments]
    assert sum(a.values == b.values for a, b in zip(shuffled, arguments, strict=True)) < len(arguments) / 3
    assert shuffle_labels(arguments, 1) != shuffled


def test_balancing_gives_every_value_the_same_weight_in_all():
    examples = survey_examples(load_starter(), POWER, PROMPTS, seed=0, balance=True)
    totals = Counter()
    for example in examples:
        totals[example.id.split("/")[1]] += example.weight
    assert set(totals) == set(VALUES)
    assert max(totals.values()) == pytest.approx(min(totals.values()))
    assert sum(totals.values()) == pytest.approx(len(examples))


def test_balancing_changes_nothing_but_the_weights():
    arguments = load_starter()
    plain, balanced = (survey_examples(arguments, POWER, PROMPTS, seed=0, balance=on) for on in (False, True))
    assert all(example.weight == 1 for example in plain)
    assert [replace(example, weight=1.0) for example in balanced] == plain


def test_balancing_classes_gives_positives_half_of_the_weight():
    target = extreme_targets()["self_enhancement"]
    examples = argument_examples(load_starter(), target, PROMPTS, balance=True)
    positive = sum(example.weight for example in examples if example.positive)
    assert positive == pytest.approx(len(examples) / 2)


def test_a_handful_of_rare_examples_cannot_rule_the_gradient():
    weights = balancing_weights(["rare"] + ["common"] * 999)
    assert sum(weights) == pytest.approx(1000)
    assert weights[0] / weights[1] == pytest.approx(5 / (1000 / 1998))
