"""Attention over packed token trees, block of queries by block of queries.

Token i sees token j iff `j <= i < ends[j]`, and in a sliding-window layer `positions[i] - positions[j] < window`.
The backward pass is written out: it recomputes the probabilities of a block from the saved log-sum-exp (as in
FlashAttention, Dao et al., 2022, arXiv 2205.14135), and keeps each product in the compute type.
"""

from functools import partial

import jax
import jax.numpy as jnp

from jaxalign.models.precision import dot, name_bits

BLOCK = 256
"""Queries of one block, over all rows: its scores are [B, K, G * BLOCK / B, keys], never [B, H, T, T], and stay in a
processor's cache."""

_MASKED = -1e30  # finite: a whole masked row would turn -inf into NaN


def visible(rows: jax.Array, ends: jax.Array, positions: jax.Array, window: jax.Array) -> jax.Array:
    """Return bool [B, t, s]: which of the keys 0..s the queries `rows` [t] see.

    `ends` [B, s]; `positions` [B, T] with T >= s; `window` int32 scalar, 0 for none.
    """
    keys = jnp.arange(ends.shape[1])
    seen = (keys[None, :] <= rows[:, None]) & (rows[None, :, None] < ends[:, None, :])
    distance = positions[:, rows][:, :, None] - positions[:, None, : ends.shape[1]]
    return seen & ((window == 0) | (distance < window))


@partial(jax.custom_vjp, nondiff_argnums=(6, 7))
def tree_attention(
    q: jax.Array,
    k: jax.Array,
    v: jax.Array,
    ends: jax.Array,
    positions: jax.Array,
    window: jax.Array,
    scale: float,
    softcap: float | None,
) -> jax.Array:
    """Return [B, K, G, T, Dh], the attention of q [B, K, G, T, Dh] over k and v [B, K, T, Dh].

    `ends` and `positions` int32 [B, T] describe the trees, `window` is an int32 scalar (0: none). Scores are
    multiplied by `scale`, then capped to `softcap * tanh(score / softcap)`.
    """
    return _attend(q, k, v, ends, positions, window, scale, softcap)[0]


def _scores(q, k, ends, positions, window, start, scale, softcap):
    """Return the masked scores [B, K, G, t, s] of one block, and the slope of the soft cap (None without)."""
    stop = start + q.shape[3]
    scores = dot(q, k, ((4,), (3,)), ((0, 1), (0, 1))) * scale
    slope = None
    if softcap is not None:
        tanh = jnp.tanh(scores / softcap)
        scores, slope = softcap * tanh, 1.0 - tanh * tanh
    seen = visible(jnp.arange(start, stop), ends[:, :stop], positions, window)
    return jnp.where(seen[:, None, None], scores, _MASKED), slope


def _blocks(rows: int, length: int):
    # Short blocks also leave out most of the keys that a query is too early for; very short ones make thin products.
    size = min(max(BLOCK // rows, 32), 128)
    return [(start, min(start + size, length)) for start in range(0, length, size)]


def _attend(q, k, v, ends, positions, window, scale, softcap):
    outputs, sums = [], []
    for start, stop in _blocks(q.shape[0], q.shape[3]):
        keys, values = k[:, :, :stop], v[:, :, :stop]
        scores, _ = _scores(q[:, :, :, start:stop], keys, ends, positions, window, start, scale, softcap)
        top = scores.max(-1, keepdims=True)
        weights = jnp.exp(scores - top)
        total = weights.sum(-1, keepdims=True)
        output = dot(weights.astype(q.dtype), values, ((4,), (2,)), ((0, 1), (0, 1)))
        outputs.append((output / total).astype(q.dtype))
        sums.append((top + jnp.log(total))[..., 0])
    return jnp.concatenate(outputs, 3), jnp.concatenate(sums, 3)


def _forward(q, k, v, ends, positions, window, scale, softcap):
    output, sums = _attend(q, k, v, ends, positions, window, scale, softcap)
    # Not `saved`, whose inside the policy would not see from within this rule.
    output, sums = name_bits(output, "attention"), name_bits(sums, "attention_sums")
    return output, (q, k, v, ends, positions, window, output, sums)


def _backward(scale, softcap, residuals, gradient):
    q, k, v, ends, positions, window, output, sums = residuals
    gradient = gradient.astype(q.dtype)
    delta = (gradient.astype(jnp.float32) * output.astype(jnp.float32)).sum(-1, keepdims=True)
    dq, dk, dv = [], jnp.zeros(k.shape, jnp.float32), jnp.zeros(v.shape, jnp.float32)
    for start, stop in _blocks(q.shape[0], q.shape[3]):
        queries, upstream = q[:, :, :, start:stop], gradient[:, :, :, start:stop]
        keys, values = k[:, :, :stop], v[:, :, :stop]
        scores, slope = _scores(queries, keys, ends, positions, window, start, scale, softcap)
        weights = jnp.exp(scores - sums[:, :, :, start:stop, None])
        dv = dv.at[:, :, :stop].add(dot(weights.astype(q.dtype), upstream, ((2, 3), (2, 3)), ((0, 1), (0, 1))))
        dweights = dot(upstream, values, ((4,), (3,)), ((0, 1), (0, 1)))
        dscores = weights * (dweights - delta[:, :, :, start:stop]) * scale
        if slope is not None:
            dscores = dscores * slope
        dscores = dscores.astype(q.dtype)
        dq.append(dot(dscores, keys, ((4,), (2,)), ((0, 1), (0, 1))).astype(q.dtype))
        dk = dk.at[:, :, :stop].add(dot(dscores, queries, ((2, 3), (2, 3)), ((0, 1), (0, 1))))
    return jnp.concatenate(dq, 3), dk.astype(k.dtype), dv.astype(v.dtype), None, None, None


tree_attention.defvjp(_forward, _backward)


def rotary_angles(positions: jax.Array, frequencies: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return the cosines and sines [B, T, Dh / 2] of each position for the inverse wavelengths [Dh / 2]."""
    angles = positions[..., None].astype(jnp.float32) * frequencies
    return jnp.cos(angles), jnp.sin(angles)


def rotate(x: jax.Array, cos: jax.Array, sin: jax.Array) -> jax.Array:
    """Rotate x [B, T, H, Dh], whose pairs stand half a head apart, as Hugging Face weights have them."""
    first, second = jnp.split(x.astype(jnp.float32), 2, -1)
    cos, sin = cos[:, :, None], sin[:, :, None]
    return jnp.concatenate([first * cos - second * sin, second * cos + first * sin], -1).astype(x.dtype)
