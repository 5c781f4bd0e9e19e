"""What the verification of a merged model sees that logits of this program cannot show."""

import dataclasses
import json

import numpy as np
import pytest
from model_folder import CONFIGS, hf_random, write_model
from tiny_model import random_adapter

from jaxalign.config.entry_point import entry_point
from jaxalign.config.identity import as_dict
from jaxalign.config.train import TrainConfig
from jaxalign.export import main
from jaxalign.models.adapter import Adapter
from jaxalign.models.architecture import from_config
from jaxalign.pretrained.peft import write_adapter
from jaxalign.pretrained.safetensors import INDEX, SafetensorsFolder, write_safetensors
from jaxalign.pretrained.verify import check_config, check_tensors
from jaxalign.runs.directory import open_run

CONFIG = CONFIGS["qwen2"] | {"tie_word_embeddings": True}
SUMMARY = {"value": "power", "target": None, "questionnaire": None, "training": {"stages": []}}


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A base whose configuration says tied, beside a head of its own, which its index does not name, and a tensor that
    no model has."""
    tensors = hf_random(CONFIG)
    more = {"lm_head.weight": 2 * tensors["model.embed_tokens.weight"], "model.extra": np.ones(3, np.float32)}
    folder = write_model(tmp_path_factory.mktemp("base"), CONFIG, tensors | more, files=2)
    index = json.loads((folder / INDEX).read_text())
    del index["weight_map"]["lm_head.weight"]
    (folder / INDEX).write_text(json.dumps(index))
    return folder


@pytest.fixture(scope="module")
def run(tmp_path_factory, base):
    """A finished run on this base."""
    seen: list[TrainConfig] = []
    settings = ["value=power", "precision=float32", "model=hub", f"model.path={base}"]
    entry_point("train", TrainConfig)(seen.append)(settings)
    found = open_run({"seed": 0}, as_dict(seen[0]), dir=tmp_path_factory.mktemp("run") / "run")
    params = random_adapter(targets=("q_proj", "down_proj"), architecture=from_config(CONFIG))
    write_adapter(found.adapter, Adapter("mine", params, 3, 6, base_name=str(base)), dropout=0.0, card="# a card")
    found.finish(SUMMARY)
    return found


@pytest.fixture(scope="module")
def out(tmp_path_factory, run):
    """The merged model."""
    folder = tmp_path_factory.mktemp("out") / "merged"
    main([f"run={run.path}", f"out={folder}", "format=merged"])
    return folder


@pytest.mark.slow
def test_a_tied_base_with_a_head_of_its_own_keeps_it_when_it_is_merged(base, run, tmp_path, capsys):
    main([f"run={run.path}", f"out={tmp_path}/out", "format=merged", "verify=true"])
    text = capsys.readouterr().out
    assert "holds a head of other values: the head is used" in text
    before, after = SafetensorsFolder(base), SafetensorsFolder(tmp_path / "out")
    right = f"tensors: ok     {len(before.names())} tensors of the base, 6 of them W + s B A, the others as they were"
    assert right in text
    assert "config:  ok     12 settings are the same in Transformers" in text
    for name in ("lm_head.weight", "model.extra"):
        np.testing.assert_array_equal(after.read(name), before.read(name))
    assert json.loads((tmp_path / "out" / "config.json").read_text()) == CONFIG | {"tie_word_embeddings": False}


Q = "model.layers.1.self_attn.q_proj.weight"


@pytest.mark.parametrize(
    ("fault", "finding"),
    [
        ("lost", "1 missing (lm_head.weight)"),
        ("more", "1 not in the base (x)"),
        ("cut", "1 of another shape (lm_head.weight)"),
        ("changed", "1 of other values (model.norm.weight)"),
        ("unmerged", f"1 of other values ({Q})"),
        ("merged twice", f"1 of other values ({Q})"),
    ],
)
def test_verification_goes_through_the_tensors_of_the_base(base, run, out, tmp_path, fault, finding):
    stored, before = SafetensorsFolder(out), SafetensorsFolder(base)
    arrays = {name: np.array(stored.read(name)) for name in stored.names()}
    write_safetensors(tmp_path / "model.safetensors", arrays, {})
    assert check_tensors(tmp_path, before, run.adapter).passed
    if fault == "lost":
        del arrays["lm_head.weight"]
    elif fault == "more":
        arrays["x"] = arrays["lm_head.weight"]
    elif fault == "cut":
        arrays["lm_head.weight"] = arrays["lm_head.weight"][1:]
    elif fault == "changed":
        arrays["model.norm.weight"] = np.nextafter(arrays["model.norm.weight"], 9)
    elif fault == "unmerged":
        arrays[Q] = np.array(before.read(Q))
    else:
        arrays[Q] = 2 * arrays[Q] - before.read(Q)
    write_safetensors(tmp_path / "model.safetensors", arrays, {})
    found = check_tensors(tmp_path, before, run.adapter)
    assert (found.passed, found.finding) == (False, finding)


def test_verification_compares_the_configuration_with_what_transformers_reads(out):
    architecture = from_config(json.loads((out / "config.json").read_text()))
    assert check_config(out, architecture).passed
    wrong = dataclasses.replace(architecture, kv_heads=4, tied=True)
    heads, tied = "num_key_value_heads is 2 in", "tie_word_embeddings is False in"
    assert check_config(out, wrong).finding == f"{heads} Transformers and 4 here, {tied} Transformers and True here"
