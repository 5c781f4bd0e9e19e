from dataclasses import dataclass
from typing import Annotated

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from jaxalign.config.commands import read_config
from jaxalign.config.crest import CrestConfig
from jaxalign.config.generate import GenerateConfig
from jaxalign.config.presets import CONF
from jaxalign.config.schema import Rule, leaf_types, read, shown
from jaxalign.errors import UserError


def stops(override, name="generate", kind=GenerateConfig):
    """The stop strings that a command line gives."""
    with initialize_config_dir(str(CONF), version_base="1.3"):
        raw = OmegaConf.to_container(compose(name, [override]), resolve=True)
    return read_config(kind, raw).sampling.stop


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        (r"['\n']", ("\n",)),
        (r"['Q:','\n\n']", ("Q:", "\n\n")),
        (r"[\n]", ("\n",)),
        (r"'a\tb'", ("a\tb",)),
        (r"['\frac']", (r"\frac",)),
        (r"['\\theta']", (r"\theta",)),
    ],
)
def test_stop_strings_are_typed_with_escapes(typed, meant):
    assert stops(f"sampling.stop={typed}") == meant


def test_the_types_of_a_schema_are_found_once_and_nobody_can_change_them():
    found = leaf_types(GenerateConfig)
    assert leaf_types(GenerateConfig) is found and "sampling.stop" in found
    with pytest.raises(TypeError):
        found["sampling.stop"] = int  # pyright: ignore[reportIndexIssue]


def test_a_real_newline_may_be_given_too_and_crest_reads_alike():
    assert stops('sampling.stop=["\n"]') == ("\n",)
    assert stops(r"sampling.stop=['\n']", "crest", CrestConfig) == ("\n",)


@pytest.mark.parametrize(("typed", "echo"), [("['']", "['']"), ("['Q:','']", "[Q:,'']"), ("''", "''")])
def test_an_empty_stop_string_is_refused_as_it_was_typed(typed, echo):
    with pytest.raises(UserError) as caught:
        stops(f"sampling.stop={typed}")
    assert str(caught.value).startswith(
        f"sampling.stop={echo} is not allowed: give a list of strings that are not empty"
    )


def test_values_are_shown_in_one_line():
    assert shown(["\n", "", 1.5, True, None]) == r"[\n,'',1.5,true,null]"


def test_a_rule_judges_what_is_meant_and_not_what_is_typed():
    @dataclass(frozen=True)
    class Named:
        name: Annotated[str, Rule("two letters", lambda text: len(text) == 2, str.strip)]

    assert read(Named, {"name": " ab "}) == Named("ab")
    with pytest.raises(UserError, match="name= a is not allowed: give two letters"):
        read(Named, {"name": " a"})
