"""What lm-evaluation-harness asks of a model; the harness itself need not be installed."""

from types import SimpleNamespace

import jax
import numpy as np
import pytest

from jaxalign.api import Adapter
from jaxalign.errors import UserError
from jaxalign.harness import Harness, sampling_of
from jaxalign.models.lora import init_adapter


@pytest.fixture(scope="module")
def model():
    return Harness(model="tiny", precision="float32", rows=8, batch_size=1)


def ask(*arguments):
    return SimpleNamespace(args=arguments)


def test_log_likelihoods_are_those_of_the_model_and_say_what_greedy_decoding_would_write(model):
    pairs = [("Once upon", " a time"), ("Once upon", " it"), ("Once upon ", "a time"), ("", "Hello")]
    found = model.loglikelihood([ask(*pair) for pair in pairs])
    alone = model.language.log_probs("Once upon", [" a time", " it"])
    np.testing.assert_allclose([score for score, _ in found[:3]], [alone[0], alone[1], alone[0]], atol=1e-4)
    (text,) = model.generate_until([ask("Once upon", {"max_gen_toks": 3, "until": []})])
    (_, greedy), (_, other) = model.loglikelihood([ask("Once upon", text), ask("Once upon", text + "zq")])
    assert greedy and not other and not any(greedy for _, greedy in found)


def test_a_rolling_text_predicts_each_token_once(model, monkeypatch):
    text = "It was a long day, and nobody said a word about it."
    (whole,) = model.loglikelihood_rolling([ask(text)])
    first = model._first()
    tokens = model.language.encoder.text(text)
    windows = model._windows(tokens)
    assert len(windows) == 1 and (windows[0][0].tokens == first).all()
    assert whole == pytest.approx(model.loglikelihood([ask("", text)])[0][0], abs=1e-3)
    # A short context: later windows are full, and their predictions do not overlap.
    architecture = SimpleNamespace(context=17)
    monkeypatch.setattr(model.language, "architecture", architecture)
    windows = model._windows(tokens)
    np.testing.assert_array_equal(np.concatenate([tree[1].tokens for tree in windows]), tokens)
    for before, scored in windows[1:]:
        assert len(before.tokens) + len(scored.tokens) == 17


def test_generation_stops_where_a_task_says(model):
    long, short = model.generate_until(
        [ask("Once", {"max_gen_toks": 12, "until": ["\n\n\n"]}), ask("Once", {"max_gen_toks": 4})]
    )
    assert long.startswith(short)
    stop = long[3:5]
    (cut,) = model.generate_until([ask("Once", {"max_gen_toks": 12, "until": [stop]})])
    assert stop not in cut and long.startswith(cut)
    assert sampling_of({"temperature": 0.7}).temperature == 0.0
    assert sampling_of({"temperature": 0.7, "do_sample": True, "top_p": 0.9}).top_p == 0.9


def test_an_adapter_answers_with_its_scale(model):
    weights = init_adapter(jax.random.key(1), model.language.architecture, 2, ("q_proj", "v_proj"))
    weights = jax.tree.map(lambda leaf: leaf + 0.3, weights)
    other = Harness(model="tiny", precision="float32", rows=8)
    other.adapter = Adapter(weights, 2, 4.0)
    request = [ask("Once upon", " a time")]
    plain, adapted = model.loglikelihood(request)[0][0], other.loglikelihood(request)[0][0]
    assert abs(plain - adapted) > 1e-3
    other.adapter = other.adapter.times(0.0)
    assert other.loglikelihood(request)[0][0] == pytest.approx(plain, abs=1e-4)


def test_what_cannot_be_scored_is_refused(model):
    with pytest.raises(UserError, match="continuation is empty"):
        model.loglikelihood([ask("Once", "")])
    with pytest.raises(UserError, match="no room"):
        model.generate_until([ask("Once", {"max_gen_toks": 100_000})])
