import jax
import jax.numpy as jnp
import numpy as np
import pytest
from one_program import value_and_vjp

from jaxalign.objectives import log_probs
from jaxalign.objectives.divergence import prediction_divergences

VOCABULARY, WIDTH = 53, 16


def plain(hidden, base, head, softcap):
    """The divergence by its definition, with all logits at once."""

    def log_softmax(states):
        logits = jnp.einsum("bpd,vd->bpv", states, head, precision="highest")
        return jax.nn.log_softmax(logits if softcap is None else softcap * jnp.tanh(logits / softcap))

    ours, theirs = log_softmax(hidden), log_softmax(jax.lax.stop_gradient(base))
    return (jnp.exp(theirs) * (theirs - ours)).sum(-1)


def a_case(count):
    random = np.random.default_rng(count)
    shapes = ((2, count, WIDTH), (2, count, WIDTH), (VOCABULARY, WIDTH))
    return tuple(jnp.asarray(random.standard_normal(shape), jnp.float32) for shape in shapes)


@pytest.mark.parametrize("count", [1, log_probs.CHUNK + 11])
@pytest.mark.parametrize("softcap", [None, 2.0])
def test_chunks_give_the_values_and_gradients_of_the_definition(count, softcap):
    hidden, base, head = a_case(count)
    weight = jnp.asarray(np.random.default_rng(0).standard_normal((2, count)), jnp.float32)
    found, (gradient,) = value_and_vjp(lambda x: prediction_divergences(x, base, head, softcap), weight, hidden)
    expected, (reference,) = value_and_vjp(lambda x: plain(x, base, head, softcap), weight, hidden)
    np.testing.assert_allclose(found, expected, atol=2e-5)
    np.testing.assert_allclose(gradient, reference, atol=2e-5)
    assert np.all(np.asarray(found) > 0)


def test_a_model_that_is_its_base_has_no_divergence_and_no_gradient():
    hidden, _, head = a_case(9)
    found, pull = jax.vjp(lambda states: prediction_divergences(states, hidden, head), hidden)
    np.testing.assert_allclose(found, 0.0, atol=1e-6)
    np.testing.assert_allclose(pull(jnp.ones_like(found))[0], 0.0, atol=1e-6)


def test_base_and_head_have_no_gradient():
    hidden, base, head = a_case(5)
    loss = jax.grad(lambda *rest: prediction_divergences(hidden, *rest).sum(), argnums=(0, 1))
    gradients = jax.jit(loss)(base, head)
    assert not any(np.any(gradient) for gradient in gradients)
