"""What a card reads of somebody's run: a damaged part is one line with its key, and never a traceback."""

import contextlib
import copy
import functools
from pathlib import Path

import pytest
from hostile import VALUES as ANYTHING
from hostile import few
from hypothesis import given
from hypothesis import strategies as st
from jobs.test_model_card import IDENTITY, SUMMARY, config

from jaxalign.config.crest import CrestConfig
from jaxalign.errors import UserError
from jaxalign.jobs.card_inputs import check_card_inputs
from jaxalign.jobs.model_card import model_card

EXACT = "precision=float32"  # a run keeps which of them `auto` has chosen


@functools.cache
def runs():
    """The configuration and the summary of a run for a value, by preferences, and of CREST."""
    trained = config("value=power", "model=llama2_7b", "alignment.regulariser.weight=0.5", EXACT)
    preferred = ("objective=dpo", "dataset=pairs", "dataset.path=mine.jsonl", "adapter=run", "model=llama2_7b", EXACT)
    told = {"value": None, "target": None, "training": {"stages": [{"name": "preferences", "pairs": 12}]}}
    reasoned = {
        "questions": {"train": 1000, "validation": 40, "test": 80},
        "model": {"name": "llama2_7b", "identity": IDENTITY},
        "models": [{"name": "base", "test": {"accuracy": 0.25, "interval": [0.2, 0.3]}}, {"name": "round 1"}],
        "final": "round 1",
    }
    crest = config("model=llama2_7b", EXACT, job="crest", kind=CrestConfig)
    return (trained, SUMMARY), (config(*preferred), SUMMARY | told), (crest, reasoned)


def leaves(found, path=()):
    """The path to each value in a tree, and to the tree's own parts."""
    items = found.items() if isinstance(found, dict) else enumerate(found) if isinstance(found, list) else ()
    for key, value in items:
        yield (*path, key)
        yield from leaves(value, (*path, key))


def place_of(tree, path):
    for key in path[:-1]:
        tree = tree[key]
    return tree


@pytest.mark.parametrize("number", range(3))
def test_a_run_of_today_can_be_described(number):
    check_card_inputs(*runs()[number], Path("run"))


@few
@given(data=st.data())
def test_a_run_is_described_or_its_damaged_key_is_named(data):
    parts = copy.deepcopy(list(data.draw(st.sampled_from(runs()))))
    part = data.draw(st.sampled_from(parts))
    path = data.draw(st.sampled_from([*leaves(part)]))
    if data.draw(st.booleans()):
        place_of(part, path)[path[-1]] = data.draw(ANYTHING | st.sampled_from((10**400, "\ud83d")))
    elif isinstance(place_of(part, path), dict):
        del place_of(part, path)[path[-1]]
    with contextlib.suppress(UserError):
        check_card_inputs(parts[0], parts[1], Path("run"))
        model_card(parts[0], parts[1], merged=True).encode()


@pytest.mark.parametrize(
    ("change", "key"),
    [
        (lambda config, summary: config.pop("lora"), "run/config.yaml: lora"),
        (lambda config, summary: config.update(precision="float8"), "run/config.yaml: precision"),
        (lambda config, summary: config["training"].update(seed={}), "run/config.yaml: training.seed"),
        (lambda config, summary: config["lora"].update(alpha=10**400), "run/config.yaml: lora.alpha"),
        (lambda config, summary: config["lora"].update(targets=["q_proj", 1]), "run/config.yaml: lora.targets.2"),
        (lambda config, summary: summary["training"].update(stages=[3]), "run/summary.json: training.stages.1"),
        (lambda config, summary: summary.update(questionnaire=7), "run/summary.json: questionnaire"),
        (
            lambda config, summary: summary["questionnaire"]["before"].pop("scores"),
            "run/summary.json: questionnaire.before.scores",
        ),
    ],
)
def test_the_key_of_what_is_damaged_is_named(change, key):
    known, summary = copy.deepcopy(runs()[0])
    change(known, summary)
    with pytest.raises(UserError) as error:
        check_card_inputs(known, summary, Path("run"))
    assert str(error.value).startswith(f"{key} is missing, damaged, or as another version of jaxalign wrote it;")
