"""The harness's model `hf` and ours on the same tiny checkpoints (tests/golden/make_harness.py), number by number."""

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from golden.draw import draw
from tokenizer_styles import hugging_face

from jaxalign.harness import Harness
from jaxalign.pretrained.safetensors import write_safetensors

GOLDEN = json.loads((Path(__file__).parent / "golden" / "harness.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module", params=["gpt2", "llama2"])
def both(request, tmp_path_factory):
    """What `hf` said, and our model of the same weights and tokenizer."""
    said, folder = GOLDEN[request.param], tmp_path_factory.mktemp(request.param)
    hf = hugging_face(request.param)
    hf.chat_template = GOLDEN["template"]
    hf.save_pretrained(folder)
    (folder / "config.json").write_text(json.dumps(said["config"]))
    shapes = {name: tuple(shape) for name, shape in said["shapes"].items()}
    write_safetensors(folder / "model.safetensors", draw(shapes, 1.0), {"format": "pt"})
    return said, Harness(model=str(folder), precision="float32", rows=4)


def ask(*arguments):
    return SimpleNamespace(args=arguments)


def test_every_log_likelihood_and_every_greedy_mark_is_that_of_hf(both):
    said, model = both
    found = model.loglikelihood([ask(context, rest) for context, rest, _, _ in said["loglikelihood"]])
    np.testing.assert_allclose([s for s, _ in found], [s for _, _, s, _ in said["loglikelihood"]], atol=2e-4)
    assert [greedy for _, greedy in found] == [greedy for *_, greedy in said["loglikelihood"]]
    assert {greedy for _, greedy in found} == {True, False}


def test_every_whole_text_is_read_in_the_windows_of_hf(both):
    said, model = both
    found = model.loglikelihood_rolling([ask(text) for text, _ in said["rolling"]])
    np.testing.assert_allclose(found, [score for _, score in said["rolling"]], atol=5e-4)


@pytest.mark.slow
def test_every_generated_text_and_every_chat_is_that_of_hf(both):
    said, model = both
    texts = model.generate_until([ask(context, settings) for context, settings, _ in said["generated"]])
    assert texts == [text for *_, text in said["generated"]]
    assert model.apply_chat_template(GOLDEN["turns"][:1]) == said["chat"]
    assert model.apply_chat_template(GOLDEN["turns"], add_generation_prompt=False) == said["continued"]
