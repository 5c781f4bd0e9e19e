import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_model import ARCHITECTURE, MODEL, apart, random_adapter, some_examples

from jaxalign.data.packing import Shape, pack
from jaxalign.models.lora import init_adapter
from jaxalign.training.optimizer import Hyperparameters
from jaxalign.training.state import init_state
from jaxalign.training.step import train_step

TARGETS = ("q_proj", "v_proj", "down_proj")


def stacked(trees):
    """Return a step of many trees."""
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)


@pytest.fixture(scope="module")
def one_step(params):
    """`train_step` without and with dropout, compiled once for each shape."""

    def step(dropout):
        return jax.jit(lambda *arguments: train_step(MODEL, "adamw", "sft", dropout, params, *arguments))

    return {dropout: step(dropout) for dropout in (False, True)}


@pytest.mark.slow
@pytest.mark.parametrize("dropout", [False, True])
def test_three_adapters_under_vmap_train_as_three_single_runs(one_step, dropout):
    rates = [0.0, 0.2, 0.5] if dropout else [0.0] * 3
    hypers = [
        jax.tree.map(jnp.float32, Hyperparameters(lr, clip=clip, scale=scale, eps=1e-4, dropout=rate))
        for lr, clip, scale, rate in zip([1e-2, 3e-3, 1e-4], [np.inf, 0.1, 1.0], [2.0, 1.0, 0.5], rates, strict=True)
    ]
    states = [init_state(random_adapter(seed, targets=TARGETS), seed) for seed in range(3)]
    steps = [[pack(apart(*some_examples(10 * step + run)), Shape(2, 96, 48)) for run in range(3)] for step in range(2)]
    steps = [[jax.tree.map(lambda x: x[None], batch) for batch in step] for step in steps]
    single = one_step[dropout]
    fused = jax.jit(jax.vmap(single))
    together, losses = stacked(states), []
    for batches in steps:
        together, metrics = fused(together, stacked(hypers), stacked(batches))
        states, alone = zip(*map(single, states, hypers, batches), strict=True)
        jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-4), metrics, stacked(alone))
        losses.append(metrics.loss_sum)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-3, atol=1e-6), together, stacked(states))
    assert len({float(loss) for loss in losses[1]}) == 3


def one_batch():
    """Return a step of one micro-batch, of the shape that the runs above have."""
    return jax.tree.map(lambda x: x[None], pack(apart(*some_examples()), Shape(2, 96, 48)))


@pytest.mark.slow
def test_accumulating_micro_batches_is_one_big_batch(one_step):
    hyper = jax.tree.map(jnp.float32, Hyperparameters(1e-2, eps=1e-4))
    state = init_state(random_adapter(targets=TARGETS), 0)
    parts = jax.tree.map(lambda x: x.reshape(2, 1, *x.shape[2:]), one_batch())
    one, many = one_step[False](state, hyper, one_batch()), one_step[False](state, hyper, parts)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-6), one, many)
    assert np.all(parts.weight.any((1, 2)))
    assert float(one[1].loss_count) == sum(len(r) * w for _, r, w in zip(*some_examples(), strict=True))


@pytest.mark.slow
def test_dropout_differs_from_step_to_step_and_from_seed_to_seed_and_is_the_same_again(one_step):
    hyper = jax.tree.map(jnp.float32, Hyperparameters(0.0, dropout=0.3))
    adapter = random_adapter(targets=TARGETS)

    def loss(seed, step):
        state = init_state(adapter, seed).replace(step=jnp.int32(step))
        return float(one_step[True](state, hyper, one_batch())[1].loss_sum)

    assert loss(0, 0) == loss(0, 0)
    assert len({loss(0, 0), loss(0, 1), loss(0, 2), loss(1, 0)}) == 4


def test_steps_lower_the_loss_and_leave_the_base_alone(one_step, params):
    before = jax.tree.map(np.array, params)
    hyper = jax.tree.map(jnp.float32, Hyperparameters(1e-2))
    state, losses = init_state(init_adapter(jax.random.key(0), ARCHITECTURE, 3, TARGETS), 0), []
    for _ in range(6):
        state, metrics = one_step[False](state, hyper, one_batch())
        losses.append(float(metrics.loss_sum / metrics.loss_count))
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] < losses[0] - 0.3
    assert int(state.step) == 6
    jax.tree.map(np.testing.assert_array_equal, params, before)
