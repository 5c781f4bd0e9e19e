import copy

import pytest
import yaml

from jaxalign.config.presets import CONF
from jaxalign.errors import UserError
from jaxalign.values.roleplay import make_role_prompts, preamble
from jaxalign.values.schwartz import VALUES, label
from jaxalign.values.targets import Target, extreme_targets

TEXTS = yaml.safe_load((CONF / "alignment" / "roleplay.yaml").read_text())["roleplay"]


def test_the_preamble_explains_the_scale_defines_each_value_and_lists_the_scores():
    text = preamble(extreme_targets()["power"], make_role_prompts(TEXTS))
    assert "1 (not important" in text and "6 (very important" in text
    for value in VALUES:
        assert sum(line.startswith(f"{label(value)}: ") for line in text.splitlines()) == 2
    assert "Power: 6\n" in text and "Security: 1\n" in text
    assert text.endswith("\n") and "{" not in text


def test_scores_between_whole_numbers_are_written_as_they_are():
    target = Target("mine", (3.25, *[2.0] * 9))
    assert "Achievement: 3.25\n" in preamble(target, make_role_prompts(TEXTS))


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("question", "Be {scores}\n", "lacks {definitions}"),
        ("question", 3, "alignment.roleplay.question must be a text"),
        ("score_line", "{value}", "lacks {score}"),
        ("definitions", "ten of them", "must give a line for each"),
        ("definitions", {"power": "rank"}, "missing: alignment.roleplay.definitions.achievement"),
        ("completion", "x", "alignment.roleplay.completion is not known"),
    ],
)
def test_wording_that_will_not_do_is_refused(key, value, said):
    with pytest.raises(UserError, match=said.replace("{", r"\{").replace("}", r"\}")):
        make_role_prompts(copy.deepcopy(TEXTS) | {key: value})


def test_an_empty_definition_is_refused():
    with pytest.raises(UserError, match=r"definitions\.power is empty"):
        make_role_prompts(TEXTS | {"definitions": TEXTS["definitions"] | {"power": " "}})
