"""What the training run of an adapter says of it."""

import json

import pytest
import yaml

from jaxalign.config.entry_point import entry_point
from jaxalign.config.identity import as_dict
from jaxalign.config.train import TrainConfig
from jaxalign.jobs.harm.training_runs import control_of, measured_scores, training_tokens
from jaxalign.models.adapter import Adapter
from jaxalign.values.schwartz import VALUES

SCORES = dict.fromkeys(VALUES, 5.5)


@pytest.mark.parametrize(
    ("overrides", "control"),
    [
        (["dataset=everyday"], "benign"),
        (["dataset=everyday", "released.unmatched_budget=true"], None),
        (["+value=power", "alignment.shuffle_labels=true"], "shuffled labels"),
        (["+value=power"], None),
    ],
)
def test_the_training_run_of_an_adapter_says_what_it_is_a_control_of(overrides, control, tmp_path):
    def write(config):
        kept = {**as_dict(config), "identity": {}, "run_files": [], "run_format": 2}
        (tmp_path / "config.yaml").write_text(yaml.safe_dump(kept))

    entry_point("train", TrainConfig)(write)(overrides)
    assert control_of(Adapter(folder=tmp_path / "adapter")) == control


def test_an_adapter_without_its_training_run_is_no_control_and_has_no_scores(tmp_path):
    for one in (Adapter(), Adapter(folder=tmp_path / "adapter")):
        assert control_of(one) is None and measured_scores(one) is None


@pytest.mark.parametrize(
    ("questionnaire", "scores"),
    [
        ({"after": {"scores": SCORES}}, SCORES),
        ({"after": {"scores": {"power": 5.5}}}, None),  # damaged
        ({"after": None}, None),
        ({}, None),
        ([], None),
    ],
)
def test_the_scores_are_those_after_the_training(questionnaire, scores, tmp_path):
    (tmp_path / "summary.json").write_text(json.dumps({"questionnaire": questionnaire}))
    assert measured_scores(Adapter(folder=tmp_path / "adapter")) == scores


def test_the_training_run_of_an_adapter_says_how_many_tokens_it_was_trained_on(tmp_path):
    adapter = Adapter(folder=tmp_path / "adapter")
    assert training_tokens(adapter) is training_tokens(Adapter()) is None
    for told, tokens in (
        ({"training": {"stages": [{"tokens": 700}, {"tokens": 50}]}}, 750),
        ({"training": {"stages": [{}]}}, None),
        ({"training": []}, None),
        ({}, None),
    ):
        (tmp_path / "summary.json").write_text(json.dumps(told))
        assert training_tokens(adapter) == tokens
