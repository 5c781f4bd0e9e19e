import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_model import ARCHITECTURE, MODEL, apart, packed, random_adapter, random_tokens, some_examples

from jaxalign.data.packing import Shape, pack, split_trees, stack_batches
from jaxalign.data.trees import Segment, merge
from jaxalign.models.lora import NO_ADAPTER, effective
from jaxalign.models.transformer import head_kernel
from jaxalign.objectives.forward import (
    batch_log_probs,
    batch_states,
    log_probs_program,
    mean_divergence,
    states_program,
)
from jaxalign.objectives.log_probs import gather_sources
from jaxalign.objectives.sft import sft_loss

SHAPE = Shape(6, 96, 48)
TARGETS = ("q_proj", "v_proj", "down_proj")


def loss_and_gradient(model, params, adapter, batch):
    """Return the mean loss of a batch, and its gradient in the adapter."""

    def loss(adapter):
        value, count = sft_loss(batch_log_probs(model, params, adapter, batch), batch.weight)
        return value / count

    return jax.value_and_grad(loss)(adapter)


def of_a_stack(model, params):
    """`loss_and_gradient` of many adapters, as one program."""
    return jax.jit(jax.vmap(partial(loss_and_gradient, model, params)))


@pytest.fixture(scope="module")
def stack(params):
    """(adapters, a batch of each, and their losses and gradients where all blocks are read)."""
    random = np.random.default_rng(3)
    trees = [
        (
            Segment(random_tokens(random, 20, 20), -1),
            *(Segment(random_tokens(random, 20, 30), 0, True) for _ in range(5)),
        )
        for _ in range(2)
    ]
    shape = Shape(1, 192, 160)
    batches = stack_batches([pack([tree], shape) for tree in trees])
    assert batches.blocks.shape[3] < 192 // 32
    adapters = jax.tree.map(lambda *leaves: jnp.stack(leaves), random_adapter(0), random_adapter(1))
    return adapters, batches, of_a_stack(MODEL, params)(adapters, batches.replace(blocks=None))


@pytest.mark.slow
@pytest.mark.parametrize("rematerialisation", ["none", "projections", "full"])
def test_reading_only_visible_blocks_changes_neither_loss_nor_gradient_of_a_stack(params, stack, rematerialisation):
    adapters, batches, every = stack
    model = dataclasses.replace(MODEL, rematerialisation=rematerialisation)
    found = of_a_stack(model, params)(adapters, batches)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-5), found, every)


@pytest.mark.slow
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


@pytest.mark.slow
def test_reading_applies_the_scale_and_zero_reads_the_base(params):
    batch, adapter = packed(apart(*some_examples()), 96), random_adapter(targets=TARGETS)
    base = np.asarray(log_probs_program(MODEL, params, adapter, np.float32(0), batch))
    doubled = log_probs_program(MODEL, params, adapter, np.float32(2), batch)
    by_hand = jax.jit(batch_log_probs, static_argnums=0)(MODEL, params, effective(adapter, 2.0), batch)
    np.testing.assert_allclose(doubled, by_hand, atol=1e-5)
    np.testing.assert_allclose(base, jax.jit(batch_log_probs, static_argnums=0)(MODEL, params, None, batch), atol=1e-5)
    assert np.abs(base - doubled).max() > 0.1


def divergence(params, adapter, batch, dropout=None):
    """The mean divergence of an effective adapter from the base, on a batch."""
    base = states_program(MODEL, params, NO_ADAPTER, np.float32(1), batch)
    return mean_divergence(MODEL, params, batch_states(MODEL, params, adapter, batch, dropout), batch, base)


@pytest.mark.slow
def test_packing_changes_neither_the_divergence_from_the_base_nor_its_gradient(params):
    trees = apart(*some_examples())
    measured = jax.jit(jax.value_and_grad(partial(divergence, params)))
    packed_, alone = (measured(random_adapter(), pack(trees, SHAPE, alone=alone)) for alone in (False, True))
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-6), packed_, alone)
    assert float(packed_[0]) > 0.01


@pytest.mark.slow
@pytest.mark.parametrize("first", [0, 1])
def test_the_divergence_is_that_of_the_base_read_apart(params, first):
    batch, dropout = pack(apart(*some_examples()), SHAPE), (jax.random.key(1), jnp.float32(0.25))
    adapter = jax.tree.map(lambda leaf: leaf[first:], random_adapter())

    def states(adapter, dropout):
        variables = {"params": params} if adapter is None else {"params": params, "lora": adapter}
        return MODEL.apply(variables, batch.tokens, batch.positions, batch.ends, batch.blocks, dropout)

    ours, theirs = (
        jax.nn.log_softmax(gather_sources(one, batch.source) @ head_kernel(params, ARCHITECTURE).T)
        for one in (states(adapter, dropout), states(None, None))
    )
    divergences = (jnp.exp(theirs) * (theirs - ours)).sum(-1)
    expected = (divergences * batch.weight).sum() / batch.weight.sum()
    found = jax.jit(divergence)(params, adapter, batch, dropout)
    np.testing.assert_allclose(found, expected, rtol=1e-4)


def test_an_adapter_without_effect_does_not_diverge_from_the_base(params):
    batch = pack(apart(*some_examples()), SHAPE)
    found = jax.jit(divergence)(params, effective(random_adapter(), 0.0), batch)
    np.testing.assert_allclose(found, 0.0, atol=1e-6)
