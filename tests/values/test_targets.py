from pathlib import Path

import pytest
from omegaconf import OmegaConf

from jaxalign.errors import UserError
from jaxalign.values.schwartz import GROUPS, VALUES
from jaxalign.values.targets import extreme_targets, make_target

CONF = Path(__file__).parents[2] / "conf" / "value"
ONES = dict.fromkeys(VALUES, 1)


def test_the_extreme_targets_are_ten_values_and_four_groups():
    targets = extreme_targets()
    assert list(targets) == [*VALUES, *GROUPS]
    assert targets["power"].score("power") == 6
    assert sum(targets["power"].scores) == 6 + 9
    assert {value for value in VALUES if targets["conservation"].score(value) == 6} == set(GROUPS["conservation"])


def test_the_files_under_conf_are_exactly_the_extreme_targets():
    read = {}
    for file in sorted(CONF.glob("*.yaml")):
        value = OmegaConf.load(file)
        read[file.stem] = make_target(value.name, value.scores, value.coding)
    assert read == extreme_targets()


def test_every_key_of_a_value_file_is_commented():
    for file in CONF.glob("*.yaml"):
        keys = [line for line in file.read_text().splitlines() if ":" in line.split("#")[0]]
        assert len(keys) == 13
        assert all("  # " in line for line in keys), file


def test_scores_are_put_in_the_order_of_the_values():
    target = make_target("mine", dict(reversed(list({**ONES, "security": 4.5}.items()))))
    assert target.scores == tuple(4.5 if value == "security" else 1.0 for value in VALUES)


def test_survey_scores_are_turned_round_unless_the_released_coding_is_asked_for():
    scores = {**ONES, "power": 5}
    assert make_target("close", scores, "survey").score("power") == 2
    assert make_target("close", scores, "survey").score("security") == 6
    assert make_target("close", scores, "survey", raw_coding=True).score("power") == 5
    assert make_target("close", scores, "importance", raw_coding=True).score("power") == 5


@pytest.mark.parametrize(
    ("name", "scores", "coding", "line"),
    [
        ("mine", {**ONES, "power": 7}, "importance", "value.scores.power=7 is out of range: give a number from 1 to 6"),
        ("mine", {**ONES, "power": 0.5}, "importance", "value.scores.power=0.5 is out of range"),
        ("mine", {**ONES, "power": "high"}, "importance", "value.scores.power=high is not a number"),
        ("mine", {**ONES, "power": True}, "importance", "value.scores.power=True is not a number"),
        ("mine", {**ONES, "power": float("nan")}, "importance", "value.scores.power=nan is not a number"),
        ("mine", {**ONES, "powre": 1}, "importance", "value.scores.powre is not .* did you mean 'power'?"),
        ("mine", {"power": 6}, "importance", "value.scores lacks achievement, benevolence"),
        ("mine", 6, "importance", "value.scores=6 must give a score for each"),
        ("My target", ONES, "importance", "value.name='My target' may hold only a-z, 0-9 and _"),
        ("mine", ONES, "surveys", "value.coding='surveys' is not known; did you mean 'survey'?"),
    ],
)
def test_a_bad_target_is_refused_in_one_line(name, scores, coding, line):
    with pytest.raises(UserError, match=line):
        make_target(name, scores, coding)
