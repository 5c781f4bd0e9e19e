import jax
import jax.numpy as jnp
import numpy as np
import pytest
from one_program import value_and_vjp

from jaxalign.objectives import log_probs as module
from jaxalign.objectives.log_probs import branch_log_probs, gather_sources, prediction_log_probs

VOCABULARY, WIDTH = 53, 16


def plain(hidden, head, target, softcap):
    logits = jnp.einsum("bpd,vd->bpv", hidden, head, precision="highest")
    if softcap is not None:
        logits = softcap * jnp.tanh(logits / softcap)
    return jnp.take_along_axis(jax.nn.log_softmax(logits), target[..., None], -1)[..., 0]


def a_case(count, dtype=jnp.float32):
    random = np.random.default_rng(count)
    hidden, head = (random.standard_normal(shape) for shape in ((2, count, WIDTH), (VOCABULARY, WIDTH)))
    target = jnp.asarray(random.integers(0, VOCABULARY, (2, count)), jnp.int32)
    return jnp.asarray(hidden, dtype), jnp.asarray(head, dtype), target


@pytest.mark.parametrize("count", [1, module.CHUNK, 2 * module.CHUNK + 11])
@pytest.mark.parametrize("softcap", [None, 2.0])
def test_chunks_give_the_values_and_gradients_of_a_plain_log_softmax(count, softcap):
    hidden, head, target = a_case(count)
    weight = jnp.asarray(np.random.default_rng(0).standard_normal((2, count)), jnp.float32)
    found, (gradient,) = value_and_vjp(lambda x: prediction_log_probs(x, head, target, softcap), weight, hidden)
    expected, (reference,) = value_and_vjp(lambda x: plain(x, head, target, softcap), weight, hidden)
    np.testing.assert_allclose(found, expected, atol=2e-5)
    np.testing.assert_allclose(gradient, reference, atol=2e-5)


@pytest.mark.parametrize(("backend", "each"), [("cpu", 64), ("gpu", 512), ("tpu", 512)])
def test_a_chunk_is_larger_where_reading_the_head_takes_longest(backend, each, monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    seen = []

    def double(part):
        seen.append(part.shape)
        return 2 * part

    given = np.arange(1400).reshape(2, 700)
    np.testing.assert_array_equal(module.in_chunks(double, given), 2 * given)
    assert set(seen) == {(2, each)}


def test_reading_without_a_gradient_gives_the_same_numbers():
    hidden, head, target = a_case(9)
    read = prediction_log_probs(hidden, head, target, None)
    trained, _ = jax.vjp(lambda hidden: prediction_log_probs(hidden, head, target, None), hidden)
    np.testing.assert_array_equal(read, trained)


def test_huge_logits_overflow_nowhere():
    hidden, head, target = a_case(5)
    ones = np.ones(target.shape, np.float32)
    found, (gradient,) = value_and_vjp(lambda x: prediction_log_probs(1e4 * x, head, target, None), ones, hidden)
    assert np.all(np.isfinite(found)) and np.all(np.isfinite(gradient))


def test_a_frozen_head_has_no_gradient():
    hidden, head, target = a_case(5)
    gradient = jax.jit(jax.grad(lambda head: prediction_log_probs(hidden, head, target, None).sum()))
    assert not np.any(gradient(head))


def test_bfloat16_states_give_float32_log_probabilities():
    hidden, head, target = a_case(30, jnp.bfloat16)
    ones = np.ones(target.shape, np.float32)
    found, (gradient,) = value_and_vjp(lambda x: prediction_log_probs(x, head, target, None), ones, hidden)
    wide = jax.jit(plain, static_argnums=3)(hidden.astype(jnp.float32), head.astype(jnp.float32), target, None)
    assert found.dtype == jnp.float32 and gradient.dtype == jnp.bfloat16
    np.testing.assert_allclose(found, wide, atol=1e-4)


def test_one_state_may_predict_several_tokens():
    states = jnp.arange(24.0).reshape(2, 4, 3)
    source = jnp.asarray([[3, 3, 0], [1, 0, 1]])
    np.testing.assert_array_equal(gather_sources(states, source)[0, :, 0], [9, 9, 0])
    np.testing.assert_array_equal(gather_sources(states, source)[1, :, 0], [15, 12, 15])


def test_a_branch_is_the_sum_of_its_predictions_over_all_rows_without_padding():
    log_probs = jnp.asarray([[-1.0, -2.0, -jnp.inf], [-4.0, -8.0, jnp.nan]])
    branch = jnp.asarray([[0, 2, 0], [2, 1, 1]])
    weight = jnp.asarray([[1.0, 3.0, 0.0], [0.5, 1.0, 0.0]])
    assert branch_log_probs(log_probs, branch, weight, 4).tolist() == [-1.0, -8.0, -6.0, 0.0]
