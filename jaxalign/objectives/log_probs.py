"""Log-probabilities of predictions and branches, from a frozen head applied in chunks.

The head runs at predictions only, a few at a time, so that [B, T, V] logits never exist. Its weight has no
gradient, and the gradient of a log-probability in its hidden state does not depend on what comes after it: the
forward pass computes it while the logits are at hand, and the backward pass is one multiplication.
"""

from functools import partial

import jax
import jax.numpy as jnp

from jaxalign.models.precision import dot, take_rows

CHUNK = 128
"""Predictions that the head handles at a time, over all rows: CHUNK * V float32 logits live at once."""


@partial(jax.custom_vjp, nondiff_argnums=(3,))
def prediction_log_probs(
    hidden: jax.Array, head: jax.Array, target: jax.Array, softcap: float | None = None
) -> jax.Array:
    """Return float32 [B, P]: log p(target | hidden).

    `hidden` [B, P, D] are the states that predict, `head` [V, D] is frozen, `target` is int32 [B, P]; logits are
    capped to `softcap * tanh(logit / softcap)`. Differentiable in `hidden`.
    """
    return _run(hidden, head, target, softcap, with_slopes=False)[0]


def _chunk(head, softcap, with_slopes, hidden, target):
    logits = dot(hidden, head, ((2,), (1,)))
    slope = None
    if softcap is not None:
        tanh = jnp.tanh(logits / softcap)
        logits, slope = softcap * tanh, 1.0 - tanh * tanh
    top = jax.lax.stop_gradient(logits.max(-1, keepdims=True))
    weights = jnp.exp(logits - top)
    total = weights.sum(-1, keepdims=True)
    chosen = jnp.take_along_axis(logits, target[..., None], -1)
    log_probs = (chosen - top - jnp.log(total))[..., 0]
    if not with_slopes:
        return log_probs, None
    weights = weights / total
    row = take_rows(head, target).astype(jnp.float32)
    if slope is not None:
        weights = weights * slope
        row = row * jnp.take_along_axis(slope, target[..., None], -1)
    expected = dot(weights.astype(hidden.dtype), head, ((2,), (0,)))
    return log_probs, (row - expected).astype(hidden.dtype)


def _run(hidden, head, target, softcap, with_slopes):
    rows, count, _ = hidden.shape
    size = min(max(CHUNK // rows, 8), count)
    padding = -count % size
    hidden = jnp.pad(hidden, ((0, 0), (0, padding), (0, 0)))
    target = jnp.pad(target, ((0, 0), (0, padding)))

    def split(x):
        return jnp.moveaxis(x.reshape(rows, -1, size, *x.shape[2:]), 1, 0)

    def join(x):
        return jnp.moveaxis(x, 0, 1).reshape(rows, -1, *x.shape[3:])[:, :count]

    def body(_, chunk):
        return None, _chunk(head, softcap, with_slopes, *chunk)

    _, (log_probs, slopes) = jax.lax.scan(body, None, (split(hidden), split(target)))
    return join(log_probs), None if slopes is None else join(slopes)


def _forward(hidden, head, target, softcap):
    return _run(hidden, head, target, softcap, with_slopes=True)


def _backward(softcap, slopes, gradient):
    return (gradient[..., None] * slopes.astype(jnp.float32)).astype(slopes.dtype), None, None


prediction_log_probs.defvjp(_forward, _backward)


def gather_sources(states: jax.Array, source: jax.Array) -> jax.Array:
    """Return [B, P, D]: the hidden states [B, T, D] at `source` [B, P]."""
    return jnp.take_along_axis(states, source[..., None], axis=1)


def branch_log_probs(log_probs: jax.Array, branch: jax.Array, weight: jax.Array, branches: int) -> jax.Array:
    """Sum the log-probabilities [B, P] of each branch, leaving out padding (weight 0); returns float32 [branches]."""
    counted = jnp.where(weight != 0, log_probs, 0.0)
    return jax.ops.segment_sum(counted.reshape(-1), branch.reshape(-1), branches)
