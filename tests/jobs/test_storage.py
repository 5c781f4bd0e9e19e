"""A base kept in fewer bits, from the command line: what is said, what counts, and what is refused."""

import json

import pytest
import yaml
from command_line import refused, run
from runs_of_tiny import SHAPED, short_questionnaire, train

from jaxalign.evaluate import main as evaluate
from jaxalign.export import main as export
from jaxalign.generate import main as generate
from jaxalign.train import main

STATED = "stored as int8"
ONE_LAYER = "model.config.num_hidden_layers=1"  # the sampler compiles each layer
QUICK = ["+value=power", "training.batch_size=4", "lora.rank=2", "precision=float32", "training.questionnaire=false"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run on the tiny model in int8."""
    return train(tmp_path_factory.mktemp("runs"), "power", "model.storage=int8", ONE_LAYER)


@pytest.mark.slow
def test_an_adapter_says_the_storage_that_it_was_trained_on(trained):
    assert json.loads((trained / "summary.json").read_text())["model"]["storage"] == "int8"
    assert json.loads((trained / "adapter" / "jaxalign.json").read_text())["storage"] == "int8"
    card = (trained / "adapter" / "README.md").read_text()
    assert "- During the training it was stored as int8, embedding and head as float32" in card


@pytest.mark.slow
def test_a_run_goes_on_with_its_own_storage_alone(trained, capsys):
    stored = yaml.safe_load((trained / "config.yaml").read_text())
    assert stored["model"]["storage"] == "int8" and stored["identity"]["content"]["model"].startswith("int8-")
    given = [
        "model=tiny",
        ONE_LAYER,
        "training.max_steps=1",
        f"dataset.path={trained.parent / 'arguments.jsonl'}",
        *QUICK,
    ]
    given += [*SHAPED, "training.validate=false", "optimizer.learning_rate=0.5", "alignment.regulariser.weight=0"]
    given += [f"run.dir={trained}"]
    printed = run(main, [*given, "model.storage=int8"], capsys)
    assert "this run is done" in printed and "base: int8 (embedding and head float32)" in printed
    for other in ("null", "bfloat16"):
        line = refused(main, [*given, f"model.storage={other}"], capsys)
        assert line.startswith(f"{trained} belongs to another configuration: model was 'int8-")


@pytest.mark.slow
def test_an_adapter_is_asked_on_its_storage_and_another_one_is_said(trained, tmp_path, capsys):
    asked = [
        f"adapter={trained}",
        "prompt=Why?",
        "sampling.max_tokens=2",
        "sampling.top_p=1",
        "precision=float32",
        f"run.root={tmp_path}",
    ]
    assert STATED not in run(generate, asked, capsys)
    said = "power was trained on a base stored as int8, and is used with one stored as"
    assert f"{said} float32" in run(generate, [*asked, "model=tiny", ONE_LAYER], capsys)
    portraits = [f"adapter={trained}", *short_questionnaire(tmp_path), "benchmark.max_tokens=2", "precision=float32"]
    portraits += ["alignment.validation_fraction=0.002", f"run.root={tmp_path}", "model.storage=bfloat16"]
    assert f"{said} bfloat16" in run(evaluate, portraits, capsys)
    assert len(list(tmp_path.glob("*-*"))) == 3  # each has a run of its own


@pytest.mark.slow
def test_a_merged_model_has_the_original_weights(trained, tmp_path, capsys):
    given = [f"run={trained}", f"out={tmp_path / 'whole'}", "format=merged", "verify=true"]
    printed = run(export, given, capsys)
    assert "trained on a base stored as int8, and merged into the original weights of the base" in printed
    assert "FAILED" not in printed


def test_what_cannot_be_kept_so_is_refused(tmp_path, capsys):
    line = "model.storage=int4 needs groups of 64 inputs, and q_proj of tiny has 32: take model.storage=int8"
    assert refused(main, ["model=tiny", *QUICK, "model.storage=int4", f"run.root={tmp_path}"], capsys) == line
    line = refused(main, ["model=tiny", *QUICK, "model.storage=int3"], capsys)
    assert line.startswith("model.storage=int3") and "did you mean 'int8'?" in line
    served = ["prompt=Why?", "model=tiny", "engine=openai", "engine.url=http://localhost:1/v1", "model.storage=int8"]
    line = "model.storage=int8 does not work with a server, which stores its model itself: leave it out"
    assert refused(generate, served, capsys) == line
