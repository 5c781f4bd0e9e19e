import json
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxalign.objectives.dpo import LOSSES, Preferences, dpo_loss

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "dpo.json").read_text())


def batch(case, padding=0):
    """The pairs of a golden: chosen responses first, then rejected ones, as TRL has them."""
    count = len(case["chosen"])
    pairs = [(n, count + n) for n in range(count)] + [(0, 0)] * padding
    weight = [1.0] * count + [0.0] * padding
    reference = np.array(case["reference_chosen"] + case["reference_rejected"], np.float32)
    preferences = Preferences(jnp.array(pairs), jnp.array(weight), jnp.array(reference))
    return jnp.array(case["chosen"] + case["rejected"]), jnp.array(case["lengths"], jnp.float32), preferences


@pytest.mark.parametrize("case", GOLDEN["cases"], ids=lambda case: "{loss}-{beta}-{smoothing}".format(**case))
def test_losses_gradients_and_rewards_are_those_of_trl(case):
    log_probs, lengths, preferences = batch(case, padding=3)

    def mean(log_probs):
        value, count, sums = dpo_loss(
            log_probs, lengths, preferences, case["beta"], kind=case["loss"], smoothing=case["smoothing"]
        )
        return value / count, {name: total / count for name, total in sums.items()}

    (value, means), gradient = jax.jit(jax.value_and_grad(mean, has_aux=True))(log_probs)
    np.testing.assert_allclose(value, case["value"], rtol=1e-5)
    np.testing.assert_allclose(gradient, case["gradient"], rtol=1e-4, atol=1e-7)
    for name in ("rewards/chosen", "rewards/rejected", "rewards/margins", "rewards/accuracies"):
        np.testing.assert_allclose(means[name], case[name], rtol=1e-4, atol=1e-6)


def test_at_the_reference_the_sigmoid_loss_is_log_2():
    log_probs = jnp.array([-3.0, -5.0, -7.0])
    preferences = Preferences(jnp.array([[0, 1], [2, 1]]), jnp.ones(2), log_probs)
    value, count, sums = jax.jit(dpo_loss)(log_probs, jnp.ones(3), preferences, 0.1)
    assert value / count == pytest.approx(np.log(2), rel=1e-6)
    assert sums["rewards/margins"] == 0 and sums["rewards/accuracies"] == 0


def test_smoothing_mixes_the_loss_with_that_of_the_turned_pair():
    log_probs = jnp.array([-3.0, -5.0])
    lengths, reference = jnp.ones(2), jnp.array([-4.0, -4.0])
    loss = jax.jit(partial(dpo_loss, beta=0.5))
    right, _, _ = loss(log_probs, lengths, Preferences(jnp.array([[0, 1]]), jnp.ones(1), reference))
    wrong, _, _ = loss(log_probs, lengths, Preferences(jnp.array([[1, 0]]), jnp.ones(1), reference))
    preferences = Preferences(jnp.array([[0, 1]]), jnp.ones(1), reference)
    mixed, _, _ = loss(log_probs, lengths, preferences, smoothing=0.2)
    assert mixed == pytest.approx(0.8 * right + 0.2 * wrong)


@pytest.mark.parametrize("kind", LOSSES)
def test_the_likelihood_term_is_the_preferred_responses_per_token(kind):
    log_probs = jnp.array([-3.0, -5.0])
    lengths = jnp.array([2.0, 4.0])
    preferences = Preferences(jnp.array([[0, 1]]), jnp.ones(1), jnp.array([-4.0, -4.0]))
    loss = jax.jit(partial(dpo_loss, kind=kind))
    without, _, _ = loss(log_probs, lengths, preferences, 0.1)
    with_it, _, _ = loss(log_probs, lengths, preferences, 0.1, likelihood=0.5)
    assert with_it - without == pytest.approx(0.5 * 3.0 / 2.0, rel=1e-5)
