from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxalign.training.optimizer import Hyperparameters, adamw, learning_rates


def test_steps_equal_those_of_optax_adamw():
    random = np.random.default_rng(0)
    params = {"a": jnp.asarray(random.standard_normal((4, 3)), jnp.float32), "b": jnp.ones(5)}
    hyper = jax.tree.map(jnp.float32, Hyperparameters(3e-3, b1=0.8, b2=0.95, eps=1e-6, weight_decay=0.1))
    ours, reference = adamw(hyper), optax.adamw(3e-3, b1=0.8, b2=0.95, eps=1e-6, weight_decay=0.1)
    gradients = [{k: random.standard_normal(x.shape).astype(np.float32) for k, x in params.items()} for _ in range(3)]

    @partial(jax.jit, static_argnums=0)
    def three_steps(optimizer, values):
        state = optimizer.init(values)
        for gradient in gradients:
            updates, state = optimizer.update(gradient, state, values)
            values = optax.apply_updates(values, updates)
        return values

    found, expected = three_steps(ours, params), three_steps(reference, params)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-5), found, expected)
    assert np.abs(found["b"] - np.asarray(params["b"])).min() > 1e-4


@pytest.mark.parametrize(("clip", "factor"), [(np.inf, 1.0), (1.0, 0.2), (5.0, 1.0), (50.0, 1.0)])
def test_the_gradient_is_clipped_to_its_global_norm_and_never_raised_to_it(clip, factor):
    gradient = {"a": np.array([3.0, 0.0], np.float32), "b": np.array([4.0], np.float32)}
    params = jax.tree.map(np.zeros_like, gradient)
    # With so large an epsilon AdamW's first step is the gradient itself, but for a constant.
    optimizer = adamw(jax.tree.map(jnp.float32, Hyperparameters(1.0, eps=1e6, weight_decay=0.0, clip=clip)))
    updates, _ = jax.jit(lambda: optimizer.update(gradient, optimizer.init(params), params))()
    expected = jax.tree.map(lambda g: -factor * g / 1e6, gradient)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-4), updates, expected)


def test_a_linear_schedule_climbs_to_the_peak_and_falls_towards_zero():
    rates = learning_rates("linear", 1.0, 3, 10)
    np.testing.assert_allclose(rates[:4], [0.25, 0.5, 0.75, 1.0], rtol=1e-6)
    np.testing.assert_allclose(rates[3:], np.arange(7, 0, -1) / 7, rtol=1e-6)


def test_a_cosine_schedule_is_half_way_down_at_half_time():
    rates = learning_rates("cosine", 2.0, 0, 9)
    np.testing.assert_allclose(rates, 1 + np.cos(np.pi * np.arange(9) / 9), rtol=1e-5)


def test_a_constant_schedule_stays_at_the_peak():
    np.testing.assert_allclose(learning_rates("constant", 0.3, 2, 5), [0.1, 0.2, 0.3, 0.3, 0.3], rtol=1e-6)


@pytest.mark.parametrize("schedule", ["constant", "linear", "cosine"])
@pytest.mark.parametrize(("warmup", "steps"), [(0, 1), (5, 1), (5, 3), (2, 20)])
def test_every_step_learns_something_and_none_beyond_the_peak(schedule, warmup, steps):
    rates = learning_rates(schedule, 0.1, warmup, steps)
    assert len(rates) == steps
    assert min(rates) > 0
    assert max(rates) == pytest.approx(0.1)
