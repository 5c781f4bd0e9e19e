"""Which adapters may answer, on which base."""

import dataclasses
import json
import shutil
from types import SimpleNamespace

import pytest
import yaml
from command_line import refused, run
from jax.sharding import AbstractMesh
from jobs.answers_of_tiny import QUICK
from runs_of_tiny import read_tiny
from tiny_model import random_adapter

from jaxalign.evaluate import main as evaluate
from jaxalign.export import main as export
from jaxalign.generate import main
from jaxalign.jobs.adapters import print_undivided
from jaxalign.jobs.harm.generate import Answering
from jaxalign.parallel.rules import MESH_AXES, placement_of
from jaxalign.pretrained import sources
from jaxalign.pretrained.peft import read_adapter, write_adapter
from jaxalign.pretrained.sources import ModelFiles
from jaxalign.runs.progress import plain_console
from jaxalign.values.schwartz import VALUES


@pytest.fixture(scope="module")
def wide(adapters, tmp_path_factory):
    """An adapter of another rank than those in `adapters`."""
    return written_beside(adapters / "power", tmp_path_factory.mktemp("wide") / "adapter", rank=4)


@pytest.fixture(scope="module")
def deep(adapters, tmp_path_factory):
    """An adapter of more layers than those in `adapters`."""
    return written_beside(adapters / "power", tmp_path_factory.mktemp("deep") / "adapter", rank=2)


def written_beside(narrow, folder, rank):
    """An adapter of all layers, like one of the last layers in all but its rank."""
    architecture = read_tiny().architecture
    found = read_adapter(narrow, architecture)
    params = random_adapter(rank=rank, targets=found.targets, architecture=architecture)
    write_adapter(folder, dataclasses.replace(found, params=params, rank=rank, first_layer=0), dropout=0.0, card="# x")
    return folder


@pytest.mark.slow
@pytest.mark.usefixtures("not_loaded")
def test_adapters_of_different_prompt_formats_are_named(adapters, here, capsys):
    shutil.copytree(adapters / "power" / "adapter", here / "chatty")
    ours = json.loads((here / "chatty" / "jaxalign.json").read_text())
    (here / "chatty" / "jaxalign.json").write_text(json.dumps(ours | {"prompt_format": "chat"}))
    line = refused(evaluate, [f"adapters=[{adapters / 'power'},chatty]"], capsys)
    assert (
        "chatty was trained with model.prompt_format=chat" in line
        and f"{adapters / 'power'}/adapter with plain" in line
    )


@pytest.mark.slow
def test_an_adapter_of_the_same_shape_and_another_base_is_named(adapters, here, capsys, monkeypatch):
    asked = ["prompt=Why?", *QUICK]
    # Only the weights tell, once they are read.
    line = refused(
        main, [f"adapter={adapters / 'power'}", "model=tiny", "++model.config.attention_bias=true", *asked], capsys
    )
    assert f"{adapters / 'power'}/adapter was trained on another base (tiny), not on tiny" in line
    # Two adapters tell by themselves.
    shutil.copytree(adapters / "power" / "adapter", here / "biased")
    ours = json.loads((here / "biased" / "jaxalign.json").read_text())
    (here / "biased" / "jaxalign.json").write_text(json.dumps(ours | {"base_identity": "0" * 64}))
    monkeypatch.setattr(ModelFiles, "load", None)
    line = refused(main, [f"adapters=[{adapters / 'power'},biased]", *asked], capsys)
    assert "biased was trained on another base (tiny), not on tiny, as " in line and "ask them one by one" in line


@pytest.mark.parametrize(
    ("base", "choice"),
    [("tiny", "model=tiny"), ("google/gemma-2-9b", "model=gemma2_9b"), ("me/mine", "model=hub model.path=me/mine")],
)
def test_an_exported_adapter_says_which_model_to_ask_before_the_default_is_fetched(
    adapters, here, capsys, monkeypatch, base, choice
):
    monkeypatch.setattr(sources, "fetch", None)
    shutil.copytree(adapters / "power" / "adapter", here / "exported")
    ours = json.loads((here / "exported" / "jaxalign.json").read_text())
    (here / "exported" / "jaxalign.json").write_text(json.dumps(ours | {"base_name": base}))
    line = refused(main, ["adapter=exported", "prompt=Why?", *QUICK], capsys)
    assert line == f"exported was trained on {base}: add {choice}"


@pytest.mark.slow
def test_an_adapter_of_a_local_copy_is_judged_by_the_weights(adapters, here, capsys, monkeypatch):
    monkeypatch.setattr("jaxalign.jobs.adapters.DEFAULT_MODEL", "tiny")
    shutil.copytree(adapters / "power" / "adapter", here / "exported")
    ours = json.loads((here / "exported" / "jaxalign.json").read_text())
    (here / "exported" / "jaxalign.json").write_text(json.dumps(ours | {"base_name": "/data/copy of it"}))
    assert "── power ──" in run(main, ["adapter=exported", "prompt=Why?", "run.dir=run", *QUICK], capsys)


@pytest.mark.slow
@pytest.mark.usefixtures("not_loaded", "here")
def test_adapters_that_cannot_answer_together_are_named(adapters, wide, deep, capsys):
    line = refused(main, [f"adapters=[{adapters / 'power'},{wide}]", "prompt=Why?", *QUICK], capsys)
    assert str(wide) in line and "lora.rank 4" in line
    line = refused(main, [f"adapters=[{adapters / 'power'},{deep}]", "prompt=Why?", *QUICK], capsys)
    assert "adapter has adapters in 2 layers" in line and "adapter has 1 layers: adapters that answer together" in line
    line = refused(
        main, [f"adapter={adapters / 'power'}", "prompt=Why?", "model=tiny", "model.config.num_hidden_layers=3"], capsys
    )
    assert "is it an adapter of another base?" in line


@pytest.mark.parametrize("way", [["--config-dir", "."], ["hydra.searchpath=[.]"]])
def test_a_default_model_of_ones_own_is_not_passed_over_without_a_word(here, capsys, way):
    (here / "model").mkdir()
    (here / "model" / "smollm2_135m.yaml").write_text("source: random\n")
    line = refused(main, [*way, "prompt=Hello"], capsys)
    assert f"{here / 'model' / 'smollm2_135m.yaml'} has the name of the default" in line
    assert "add model=smollm2_135m for yours" in line


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda model: model.pop("name"), "model has no 'name', which the model needs; get the run again"),
        (lambda model: model.pop("source"), "model has no 'source', which the model needs"),
        (lambda model: model.update(path=7), "model: path=7 is not allowed: it must be a text"),
        (lambda model: model.update(config=["x"]), "model: config=a list is not allowed"),
        (
            lambda model: model.update(source="package", package="--requirement=x", version="1", sha256="0", file="f"),
            "model.package=--requirement=x is not the name of a package",
        ),
    ],
)
@pytest.mark.parametrize("command", [main, evaluate])
def test_the_model_in_the_configuration_of_somebody_elses_run_is_checked(
    adapters, here, capsys, not_loaded, change, words, command
):
    shutil.copytree(adapters / "power", here / "theirs")
    path = here / "theirs" / "config.yaml"
    config = yaml.safe_load(path.read_text())
    change(config["model"])
    path.write_text(yaml.safe_dump(config))
    line = refused(command, ["adapter=theirs", *(["prompt=Why?"] if command is main else [])], capsys)
    assert words in line
    line = refused(export, ["run=theirs", "out=out", "format=merged"], capsys)
    assert words in line and not (here / "out").exists()


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ({"power": 6}, "has no 'achievement', which a target needs"),
        (dict.fromkeys(VALUES, "6"), "achievement='6' is not allowed"),
        (dict.fromkeys(VALUES, 1e9), "up to 6"),
        ([6] * 10, "target=a list is not allowed"),
    ],
)
def test_the_target_beside_somebody_elses_adapter_is_checked(adapters, here, capsys, not_loaded, target, words):
    shutil.copytree(adapters / "power" / "adapter", here / "theirs")
    path = here / "theirs" / "jaxalign.json"
    ours = json.loads(path.read_text())
    path.write_text(json.dumps({**ours, "extra": {**ours["extra"], "target": target}}))
    line = refused(evaluate, ["adapter=theirs", "model=tiny"], capsys)
    assert line.startswith("theirs/jaxalign.json: extra") and words in line


def test_a_number_of_adapters_that_the_mesh_does_not_divide_is_said(capsys):
    mesh = AbstractMesh((2, 1, 4, 1), MESH_AXES)
    print_undivided(plain_console(), placement_of(mesh, {}), [4, 3, 3])
    assert capsys.readouterr().out == "adapters: 3 is not divided by mesh.adapter=2, so each device holds all of it\n"
    print_undivided(plain_console(), None, [3])
    assert capsys.readouterr().out == ""
    opened = SimpleNamespace(load=lambda: "base", placement=placement_of(mesh, {}))
    answering = Answering(SimpleNamespace(opened=opened, console=plain_console()), [])  # pyright: ignore[reportArgumentType]
    assert answering._loaded() == answering._loaded() == "base"  # a benchmark of harm asks one adapter at a time
    assert capsys.readouterr().out == "adapters: 1 is not divided by mesh.adapter=2, so each device holds all of it\n"
