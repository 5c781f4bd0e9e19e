"""The Python API, on the tiny random model."""

import doctest

import numpy as np
import pytest

import jaxalign
from jaxalign import api
from jaxalign.errors import UserError


@pytest.fixture(scope="module")
def model():
    return jaxalign.load_model("tiny", precision="float32")


PAIRS = [(f"Say {word}.\n", word) for word in ("one", "two", "three", "four", "five", "six")]


def test_the_examples_in_the_documentation_are_true():
    assert doctest.testmod(api).failed == 0


def test_a_trained_adapter_prefers_its_responses_and_survives_a_folder(model, tmp_path):
    before = model.log_probs(PAIRS[0][0], ["one", "two"])
    adapter, summary = model.train_adapter(PAIRS, rank=4, epochs=8, learning_rate=0.02, validation_fraction=0.2)
    assert summary["last_loss"] < summary["first_loss"]
    after = model.log_probs(PAIRS[0][0], ["one", "two"], adapter=adapter)
    assert after.sum() > before.sum()
    model.save_adapter(adapter, tmp_path / "adapter")
    read = model.load_adapter(tmp_path / "adapter")
    np.testing.assert_allclose(model.log_probs(PAIRS[0][0], ["one", "two"], adapter=read), after, rtol=1e-5)


def test_the_base_is_the_same_after_sampling_and_an_adapter_times_nothing_is_the_base(model):
    first = model.log_probs("Why?\n", ["yes", "no"])
    adapter, _ = model.train_adapter(PAIRS, rank=2, max_steps=1, learning_rate=0.1)
    texts = model.sample(["Why?", "Who?"], n=2, max_tokens=6)
    assert [len(row) for row in texts] == [2, 2]
    assert model.sample(["Why?", "Who?"], n=2, max_tokens=6, adapter=adapter.times(0)) == texts
    assert model.sample(["Why?", "Who?"], n=2, max_tokens=6, adapter=adapter) != texts
    np.testing.assert_array_equal(model.log_probs("Why?\n", ["yes", "no"]), first)
    np.testing.assert_array_equal(model.log_probs("Why?\n", ["yes", "no"], adapter=adapter.times(0)), first)


def test_bad_input_is_refused(model, tmp_path):
    with pytest.raises(UserError, match="precision=half is not known"):
        jaxalign.load_model("tiny", precision="half")
    with pytest.raises(UserError, match="is no adapter"):
        model.load_adapter(tmp_path)
    with pytest.raises(UserError, match="max_tokens"):
        model.sample("Why?", max_tokens=0)
