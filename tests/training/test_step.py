import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_model import ARCHITECTURE, MODEL, apart, random_adapter, random_tokens, some_examples

from jaxalign.data.packing import Shape, pack
from jaxalign.data.trees import text_tree
from jaxalign.models.lora import NO_ADAPTER, effective, init_adapter
from jaxalign.models.transformer import head_kernel
from jaxalign.objectives.forward import states_program
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


def one_row():
    """Return the same step as a single row."""
    return jax.tree.map(lambda x: x[None], pack(apart(*some_examples()), Shape(1, 160, 96)))


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


def plain_texts(seed):
    """Return a row of plain texts, as a regulariser reads them."""
    random = np.random.default_rng(seed)
    return pack([text_tree(random_tokens(random, 8, 8)) for _ in range(4)], Shape(1, 28, 28))


def held(params, *texts):
    """Return what a step takes of the last of several rows of texts."""
    several = jax.tree.map(lambda *rows: np.concatenate(rows), *texts)
    states = states_program(MODEL, params, NO_ADAPTER, np.float32(1), several)
    return texts[-1], states, np.asarray(len(texts) - 1, np.int32)


def log_softmax(params, adapter, batch):
    """Return all log-probabilities [B, P, V] after the states that predict."""
    variables = {"params": params, **({} if adapter is None else {"lora": adapter})}
    states = MODEL.apply(variables, batch.tokens, batch.positions, batch.ends, None, None)
    sources = jnp.take_along_axis(states, batch.source[..., None], 1)
    return jax.nn.log_softmax(sources @ head_kernel(params, ARCHITECTURE).T)


@pytest.mark.slow
def test_a_step_adds_the_weighted_divergence_from_the_base_to_the_mean_loss(one_step, params):
    batch, plain = jax.tree.map(lambda x: x[0], one_batch()), plain_texts(5)
    state = init_state(random_adapter(targets=TARGETS), 0)

    def total(adapter):
        adapter = effective(adapter, 2.0)
        chosen = jnp.take_along_axis(log_softmax(params, adapter, batch), batch.target[..., None], -1)[..., 0]
        theirs = log_softmax(params, None, plain)
        divergence = (jnp.exp(theirs) * (theirs - log_softmax(params, adapter, plain))).sum(-1).mean()
        return -(chosen * batch.weight).sum() / batch.weight.sum() + 3.0 * divergence, divergence

    (_, divergence), expected = jax.jit(jax.value_and_grad(total, has_aux=True))(state.adapter)
    hyper = jax.tree.map(jnp.float32, Hyperparameters(1e-2, b1=0.0, scale=2.0, divergence=3.0))
    for batches in (one_batch(), jax.tree.map(lambda x: x.reshape(2, 1, *x.shape[2:]), one_batch()), one_row()):
        new, metrics = one_step[False](state, hyper, batches, held(params, plain_texts(6), plain))
        found = next(part.mu for part in new.opt_state if hasattr(part, "mu"))  # with b1 = 0 it is the gradient
        jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-3, atol=1e-5), found, expected)
        np.testing.assert_allclose(metrics.sums["divergence"] / metrics.loss_count, divergence, rtol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("batch", [one_batch, one_row])
def test_adapters_under_vmap_with_weights_and_plain_texts_of_their_own_train_as_single_runs(one_step, params, batch):
    hypers = [jax.tree.map(jnp.float32, Hyperparameters(1e-2, eps=1e-4, divergence=weight)) for weight in (0.0, 4.0)]
    states = [init_state(random_adapter(seed, targets=TARGETS), seed) for seed in range(2)]
    plain = [held(params, plain_texts(seed)) for seed in range(2)]
    alone = [one_step[False](states[one], hypers[one], batch(), plain[one]) for one in range(2)]
    fused = jax.jit(jax.vmap(one_step[False], in_axes=(0, 0, None, 0)))
    together = fused(stacked(states), stacked(hypers), batch(), stacked(plain))
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-3, atol=1e-6), together, stacked(alone))
    # With a weight of 0 the texts change nothing. A program without them rounds in its own way.
    others = one_step[False](states[0], hypers[0], batch(), plain[1])
    jax.tree.map(np.testing.assert_array_equal, others[0].adapter, alone[0][0].adapter)
    without = one_step[False](states[0], hypers[0], batch())
    jax.tree.map(
        lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-6), without[0].adapter, alone[0][0].adapter
    )
