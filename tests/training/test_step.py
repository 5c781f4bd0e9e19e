import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_model import ARCHITECTURE, MODEL, packed, random_adapter, random_params, random_tokens

from jaxalign.data.packing import Shape, pack, split_trees, stack_batches
from jaxalign.data.trees import Segment, merge
from jaxalign.models.lora import effective, init_adapter
from jaxalign.objectives.forward import batch_log_probs, log_probs_program
from jaxalign.objectives.sft import sft_loss
from jaxalign.training.optimizer import Hyperparameters
from jaxalign.training.state import init_state
from jaxalign.training.step import train_step

SHAPE = Shape(6, 96, 48)
TARGETS = ("q_proj", "v_proj", "down_proj")


def loss_and_gradient(model, params, adapter, batch):
    """Return the mean loss of a batch, and its gradient in the adapter."""

    def loss(adapter):
        value, count = sft_loss(batch_log_probs(model, params, adapter, batch), batch.weight)
        return value / count

    return jax.value_and_grad(loss)(adapter)


@pytest.mark.parametrize("rematerialisation", ["none", "projections", "full"])
def test_reading_only_visible_blocks_changes_neither_loss_nor_gradient_of_a_stack(params, rematerialisation):
    model = dataclasses.replace(MODEL, rematerialisation=rematerialisation)
    random = np.random.default_rng(3)
    trees = [
        (
            Segment(random_tokens(random, 20, 20), -1),
            *(Segment(random_tokens(random, 20, 30), 0, True) for _ in range(10)),
        )
        for _ in range(2)
    ]
    shape = Shape(1, 352, 320)
    batches = stack_batches([pack([tree], shape) for tree in trees])
    assert batches.blocks.shape[3] < 352 // 32
    adapters = jax.tree.map(lambda *leaves: jnp.stack(leaves), random_adapter(0), random_adapter(1))

    each = jax.jit(jax.vmap(partial(loss_and_gradient, model, params)))
    found, every = each(adapters, batches), each(adapters, batches.replace(blocks=None))
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-5), found, every)


@pytest.fixture(scope="module")
def params():
    return random_params()


def some_examples(seed=0):
    """Return prompts, responses and weights of six examples; two prompts are shared, and all begin alike."""
    random = np.random.default_rng(seed)
    stem = random_tokens(random, 7, 7)
    prompts = [np.concatenate([stem, random_tokens(random, 3, 9)]) for _ in range(3)]
    responses = [random_tokens(random, 2, 7) for _ in range(6)]
    return [prompts[i] for i in (0, 0, 0, 1, 1, 2)], responses, [1.0, 2.0, 0.5, 1.0, 3.0, 1.0]


def apart(prompts, responses, weights):
    """Return a tree for each example, with a copy of the prompt of its own."""
    examples = zip(prompts, responses, weights, strict=True)
    return [(Segment(prompt, -1), Segment(response, 0, True, weight)) for prompt, response, weight in examples]


def test_packing_and_sharing_prompts_change_neither_loss_nor_gradient(params):
    measured = jax.jit(partial(loss_and_gradient, MODEL, params))
    examples, adapter = some_examples(), random_adapter()
    unpacked = measured(adapter, pack(apart(*examples), SHAPE, alone=True))
    shared = merge(*examples)
    layouts = {
        "packed": pack(apart(*examples), SHAPE),
        "shared": pack(shared, SHAPE),
        "shared and split": pack(split_trees(shared, 40), SHAPE),
    }
    assert len(split_trees(shared, 40)) > 1
    assert sum(np.bincount(layouts["packed"].weight.any(1))) < 12
    for batch in layouts.values():
        jax.tree.map(
            lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-5),
            measured(adapter, batch),
            unpacked,
        )


def stacked(trees):
    """Return a step of many trees."""
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)


@pytest.fixture(scope="module")
def one_step(params):
    """`train_step` without and with dropout, compiled once for each shape."""

    def step(dropout):
        return jax.jit(lambda *arguments: train_step(MODEL, "adamw", "sft", dropout, params, *arguments))

    return {dropout: step(dropout) for dropout in (False, True)}


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


def test_accumulating_micro_batches_is_one_big_batch(one_step):
    hyper = jax.tree.map(jnp.float32, Hyperparameters(1e-2, eps=1e-4))
    state = init_state(random_adapter(targets=TARGETS), 0)
    parts = jax.tree.map(lambda x: x.reshape(2, 1, *x.shape[2:]), one_batch())
    one, many = one_step[False](state, hyper, one_batch()), one_step[False](state, hyper, parts)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-6), one, many)
    assert np.all(parts.weight.any((1, 2)))
    assert float(one[1].loss_count) == sum(len(r) * w for _, r, w in zip(*some_examples(), strict=True))


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


def test_reading_applies_the_scale_and_zero_reads_the_base(params):
    batch, adapter = packed(apart(*some_examples()), 96), random_adapter(targets=TARGETS)
    base = np.asarray(log_probs_program(MODEL, params, adapter, np.float32(0), batch))
    doubled = log_probs_program(MODEL, params, adapter, np.float32(2), batch)
    by_hand = jax.jit(batch_log_probs, static_argnums=0)(MODEL, params, effective(adapter, 2.0), batch)
    np.testing.assert_allclose(doubled, by_hand, atol=1e-5)
    np.testing.assert_allclose(base, jax.jit(batch_log_probs, static_argnums=0)(MODEL, params, None, batch), atol=1e-5)
    assert np.abs(base - doubled).max() > 0.1
