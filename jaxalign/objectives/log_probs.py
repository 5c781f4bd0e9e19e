"""Log-probabilities of predictions and branches. The frozen head is applied in chunks.

The head runs at predictions only, a few at a time, so that logits [B, T, V] never exist. Its weight has no gradient.
The gradient of a log-probability in its hidden state does not depend on the loss: the forward pass computes it while
the logits are there, and the backward pass only multiplies it.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float32, Int32, Shaped

from jaxalign.models.precision import dot, take_rows
from jaxalign.parallel.processor import on_cpu
from jaxalign.parallel.rules import Placement
from jaxalign.parallel.vocabulary import VocabularyShare, on_each_device

CHUNK, LARGE_CHUNK = 128, 1024
"""Predictions in a chunk, over all rows, on a CPU and elsewhere: so many times V float32 logits are in memory at once.
Each chunk reads the whole head, and for few predictions that takes a GPU or TPU longer than to compute with it."""


@partial(jax.custom_vjp, nondiff_argnums=(3, 4))
def prediction_log_probs(
    hidden: Float[Array, "B P D"],
    head: Float[Array, "V D"],
    target: Int32[Array | np.ndarray, "B P"],
    softcap: float | None = None,
    placement: Placement | None = None,
) -> Float32[Array, "B P"]:
    """Return log p(target | hidden) [B, P] in nats, for targets [B, P] and the states [B, P, D] that predict them.

    `head` [V, D] is frozen. Logits are capped to `softcap * tanh(logit / softcap)`. Only `hidden` has a gradient.
    With a placement, rows and vocabulary are divided between devices (`parallel.vocabulary`).
    """
    return _run(hidden, head, target, softcap, placement, with_gradients=False)[0]


def _chunk(
    share: VocabularyShare,
    head: Float[Array, "V D"],
    softcap: float | None,
    with_gradients: bool,
    hidden: Float[Array, "B p D"],
    target: Int32[Array, "B p"],
) -> tuple[Float32[Array, "B p"], Float[Array, "B p D"] | None]:
    """Return the log-probabilities of a chunk, and the gradient of each in its hidden state (None if not wanted)."""
    hidden, target = share.gathered(hidden), share.gathered(target)
    logits = dot(hidden, head, ((2,), (1,)))
    derivative = None

    def at_target(x: Float32[Array, "b p V"]) -> Float32[Array, "b p _"]:
        return share.taken(lambda place: jnp.take_along_axis(x, place[..., None], -1), target, head.shape[0])

    if softcap is not None:
        tanh = jnp.tanh(logits / softcap)
        logits, derivative = softcap * tanh, 1.0 - tanh * tanh
    top = share.most(jax.lax.stop_gradient(logits.max(-1, keepdims=True)))
    weights = jnp.exp(logits - top)
    total = share.total(weights.sum(-1, keepdims=True))
    chosen = share.total(at_target(logits))
    log_probs = share.own((chosen - top - jnp.log(total))[..., 0])
    if not with_gradients:
        return log_probs, None
    weights = weights / total
    row = share.taken(partial(take_rows, head), target, head.shape[0]).astype(jnp.float32)
    if derivative is not None:
        weights = weights * derivative
        row = row * at_target(derivative)
    expected = dot(weights.astype(hidden.dtype), head, ((2,), (0,)))
    return log_probs, share.own_total(row - expected).astype(hidden.dtype)


def _chunk_size() -> int:
    return CHUNK if on_cpu() else LARGE_CHUNK


def _run(
    hidden: Float[Array, "B P D"],
    head: Float[Array, "V D"],
    target: Int32[Array | np.ndarray, "B P"],
    softcap: float | None,
    placement: Placement | None,
    with_gradients: bool,
) -> tuple[Float32[Array, "B P"], Float[Array, "B P D"] | None]:
    def own(share: VocabularyShare, head: Array, hidden: Array, target: Array | np.ndarray) -> Any:
        return in_chunks(partial(_chunk, share, head, softcap, with_gradients), hidden, target)

    return on_each_device(placement, own, head, hidden, target)


def in_chunks(function: Callable[..., Any], *arrays: Shaped[Array | np.ndarray, "B P *_"]) -> Any:
    """Return what a function of predictions returns for arrays [B, P, ...], computed a chunk [B, p, ...] at a time.

    The function returns a pytree of arrays [B, p, ...].
    """
    rows, count = arrays[0].shape[:2]
    size = min(max(_chunk_size() // rows, 8), count)
    padding = -count % size

    def split(x: Shaped[Array | np.ndarray, "B P *rest"]) -> Shaped[Array, "chunks B p *rest"]:
        padded = jnp.pad(x, ((0, 0), (0, padding), *((0, 0) for _ in x.shape[2:])))
        return jnp.moveaxis(padded.reshape(rows, -1, size, *x.shape[2:]), 1, 0)

    def join(x: Shaped[Array, "chunks B p *rest"]) -> Shaped[Array, "B P *rest"]:
        return jnp.moveaxis(x, 0, 1).reshape(rows, -1, *x.shape[3:])[:, :count]

    _, results = jax.lax.scan(lambda _, chunk: (None, function(*chunk)), None, tuple(map(split, arrays)))
    return jax.tree.map(join, results)


def _forward(
    hidden: Float[Array, "B P D"],
    head: Float[Array, "V D"],
    target: Int32[Array | np.ndarray, "B P"],
    softcap: float | None,
    placement: Placement | None,
) -> tuple[Float32[Array, "B P"], Float[Array, "B P D"] | None]:
    return _run(hidden, head, target, softcap, placement, with_gradients=True)


def _backward(
    softcap: float | None,
    placement: Placement | None,
    gradients: Float[Array, "B P D"],
    upstream: Float32[Array, "B P"],
) -> tuple[Float[Array, "B P D"], None, None]:
    return (upstream[..., None] * gradients.astype(jnp.float32)).astype(gradients.dtype), None, None


prediction_log_probs.defvjp(_forward, _backward)


def most_probable(
    hidden: Float[Array, "B P D"],
    head: Float[Array, "V D"],
    softcap: float | None = None,
    placement: Placement | None = None,
) -> Int32[Array, "B P"]:
    """Return the most probable token [B, P] after each state [B, P, D], the first one of equals; see above."""

    def own(share: VocabularyShare, head: Float[Array, "V D"], hidden: Float[Array, "B P D"]) -> Int32[Array, "B P"]:
        def choose(states: Float[Array, "B D"]) -> Int32[Array, " B"]:
            logits = dot(share.gathered(states), head, ((1,), (1,)))
            logits = logits if softcap is None else softcap * jnp.tanh(logits / softcap)
            return share.own(share.argmax(logits))

        batch_size = max(_chunk_size() // hidden.shape[0], 8)
        return jnp.moveaxis(jax.lax.map(choose, jnp.moveaxis(hidden, 1, 0), batch_size=batch_size), 0, 1)

    return on_each_device(placement, own, head, hidden)


def gather_sources(states: Float[Array, "B T D"], source: Int32[Array | np.ndarray, "B P"]) -> Float[Array, "B P D"]:
    """Return the hidden states [B, P, D] at the places `source` [B, P] of states [B, T, D]."""
    return jnp.take_along_axis(states, source[..., None], axis=1)


def branch_log_probs(
    log_probs: Float32[Array | np.ndarray, "B P"],
    branch: Int32[Array | np.ndarray, "B P"],
    weight: Float32[Array | np.ndarray, "B P"],
    branches: int,
) -> Float32[Array, " {branches}"]:
    """Return the sum [branches] of each branch's log-probabilities [B, P], without padding (weight 0)."""
    counted = jnp.where(weight != 0, log_probs, 0.0)
    return jax.ops.segment_sum(counted.reshape(-1), branch.reshape(-1), branches)
