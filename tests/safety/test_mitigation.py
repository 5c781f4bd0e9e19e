"""Mitigation: prompts differ by the policy alone, and a category without a value is said."""

import json
import tempfile
from pathlib import Path

import pytest
from hostile import VALUES, damaged, few, survives
from hypothesis import given
from hypothesis import strategies as st

from jaxalign.errors import UserError
from jaxalign.safety.benchmarks.benchmark import BenchmarkPrompt
from jaxalign.safety.mitigation import POLICIES, Mitigation
from jaxalign.safety.value_map import read_value_map
from jaxalign.values.schwartz import VALUES as VALUE_NAMES

PROMPT = BenchmarkPrompt("1", "adult_content", "question", "Why do\npeople vote? ")
OTHER = BenchmarkPrompt("2", "malware", "question", "What is a virus?")


def test_prompts_are_identical_but_for_the_policy():
    values = read_value_map().values
    leads = {}
    for policy in POLICIES:
        mitigation = Mitigation(policy, values)
        lead, text = mitigation.lead("adult_content"), mitigation.text(PROMPT)
        assert text == (f"{lead}\n\n{PROMPT.text}" if lead else PROMPT.text)
        leads[policy] = lead
    assert leads["none"] == "" and len(set(leads.values())) == len(POLICIES)
    assert leads["dual_prompt"] == f"{leads['safety_prompt']} {leads['value_prompt']}"
    assert "self-direction" in leads["value_prompt"] and "Set self-direction aside" in leads["value_prompt"]
    sizes = [len(leads[name].split()) for name in ("safety_prompt", "neutral_prompt")]
    assert abs(sizes[0] - sizes[1]) <= 2
    for policy in ("value_prompt", "unrelated_value_prompt", "neutral_prompt"):
        assert not any(word in leads[policy].lower() for word in ("safe", "harm", "danger", "hurt"))
    assert leads["unrelated_value_prompt"].replace("achievement", "self-direction") == leads["value_prompt"]


def test_directions_come_from_the_map(tmp_path):
    (tmp_path / "m.json").write_text(json.dumps({"malware": {"power": "suppress", "benevolence": "reinforce"}}))
    lead = Mitigation("value_prompt", read_value_map(tmp_path / "m.json").values).lead("malware")
    assert "Set power aside" in lead and "Let benevolence guide" in lead
    unrelated = Mitigation("unrelated_value_prompt", read_value_map(tmp_path / "m.json").values).lead("malware")
    assert "power" not in unrelated and "benevolence" not in unrelated


def test_a_map_that_leaves_no_unrelated_value_is_one_line():
    everything = {"malware": dict.fromkeys(VALUE_NAMES, "suppress")}
    assert "Set " in Mitigation("value_prompt", everything).lead("malware")
    with pytest.raises(UserError, match="the map ties 10 values to Malware, and no value a quarter of the circle away"):
        Mitigation("unrelated_value_prompt", everything).lead("malware")


def test_a_category_without_a_value_is_left_aside_or_an_error():
    mitigation = Mitigation("value_prompt", read_value_map().values)
    assert mitigation.covered([PROMPT, OTHER]) == ([PROMPT], ["Malware"])
    assert Mitigation("safety_prompt").covered([PROMPT, OTHER]) == ([PROMPT, OTHER], [])
    with pytest.raises(UserError, match=r"needs a value for a category.*\(Malware\): give mitigation.map=FILE"):
        mitigation.covered([OTHER])


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ('{"malwar": {"power": "suppress"}}', "unknown category 'malwar'; did you mean 'malware'"),
        ('{"malware": {"powr": "suppress"}}', "unknown value 'powr' for 'malware'; did you mean 'power'"),
        ('{"malware": {"power": "more"}}', "it must be suppress or reinforce"),
        ('{"malware": {}}', "has no values for 'malware'"),
        ("[]", "must hold an object"),
    ],
)
def test_a_map_with_something_unknown_is_one_line(tmp_path, text, line):
    (tmp_path / "m.json").write_text(text)
    with pytest.raises(UserError, match=line):
        read_value_map(tmp_path / "m.json")


def test_an_unknown_policy_is_one_line():
    with pytest.raises(UserError, match="no mitigation is called 'safty_prompt'; did you mean 'safety_prompt'"):
        Mitigation("safty_prompt")


def keyed(names, inner):
    """Objects with some of these keys."""
    return st.dictionaries(st.sampled_from(names), VALUES | inner, max_size=3)


MAPS = keyed(("malware", "adult_content", "x"), keyed(("power", "x"), st.sampled_from(("suppress", "reinforce"))))


@few
@given(content=damaged((MAPS | keyed(("map", "prompts"), MAPS | st.just(["a"]))).map(json.dumps)))
def test_any_bytes_are_a_map_or_one_line(content):
    with tempfile.TemporaryDirectory() as folder:
        survives(read_value_map, Path(folder) / "value_map.json", content)
        survives(lambda path: read_value_map(path.parent), Path(folder) / "value_map.json", content)
