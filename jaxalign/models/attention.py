"""Attention over packed token trees, block of queries by block of queries, over the blocks of keys that one can see.

Token i sees token j iff `j <= i < ends[j]`, and in a sliding-window layer `positions[i] - positions[j] < window`.
The backward pass is written out: it recomputes the probabilities of a block from the saved log-sum-exp (as in
FlashAttention, Dao et al., 2022, arXiv 2205.14135), and keeps each product in the compute type.
"""

from collections.abc import Iterator
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Float32, Int32, Shaped

from jaxalign.models.precision import dot, from_bits, name_bits, to_bits

QUERY_BLOCK, KEY_BLOCK = 64, 32
"""Tokens of a block of queries and of a block of keys: its scores, [B, K, G, QUERY_BLOCK, keys], are never
[B, H, T, T] and stay in a processor's cache. Smaller blocks leave out more keys, and make thinner products."""

Queries = Float[Array, "B K G T Dh"]
Keys = Float[Array, "B K T Dh"]  # and values
PerToken = Int32[Array | np.ndarray, "B T"]
KeyBlocks = Int32[Array | np.ndarray, "B Q M"] | None
Listed = Int32[Array | np.ndarray, "B M"] | None
Scalar = Int32[Array | np.ndarray, ""]

_MASKED = -1e30  # finite: a whole masked row would turn -inf into NaN


def visible(
    rows: Int32[Array, " t"],
    columns: Int32[Array, "B s"],
    ends: PerToken,
    positions: PerToken,
    window: Scalar,
) -> Bool[Array, "B t s"]:
    """Return bool [B, t, s]: whether the queries `rows` [t] see the keys `columns` [B, s].

    `ends`, `positions` int32 [B, T]; `window` int32 scalar, 0 for none. A column beyond the row is seen by none.
    """
    stops, at = (jnp.take_along_axis(x, columns, 1, mode="clip") for x in (ends, positions))
    seen = (columns[:, None, :] <= rows[:, None]) & (rows[:, None] < stops[:, None, :])
    distance = positions[:, rows][:, :, None] - at[:, None, :]
    return seen & ((window == 0) | (distance < window))


@partial(jax.custom_vjp, nondiff_argnums=(7, 8))
def tree_attention(
    q: Queries,
    k: Keys,
    v: Keys,
    ends: PerToken,
    positions: PerToken,
    blocks: KeyBlocks,
    window: Scalar,
    scale: float,
    softcap: float | None,
) -> Queries:
    """Return [B, K, G, T, Dh], the attention of q [B, K, G, T, Dh] over k and v [B, K, T, Dh].

    `ends` and `positions` int32 [B, T] describe the trees, `blocks` int32 [B, T / QUERY_BLOCK, M] lists the blocks of
    keys that hold what a block of queries sees (see `data.packing.visible_blocks`; what fills a list up is read and
    masked; None: all up to its last query), `window` is an int32 scalar (0: none). Scores are multiplied by `scale`,
    then capped to `softcap * tanh(score / softcap)`.
    """
    return _attend(q, k, v, ends, positions, blocks, window, scale, softcap)[0]


def _split(x: Keys) -> Shaped[Array, "B K blocks block Dh"]:
    """Cut [B, K, T, Dh] into blocks [B, K, T / KEY_BLOCK, KEY_BLOCK, Dh], the last one filled with zeros; as bits."""
    rest = -x.shape[2] % KEY_BLOCK
    x = jnp.pad(to_bits(x), ((0, 0), (0, 0), (0, rest), (0, 0)))
    return x.reshape(*x.shape[:2], -1, KEY_BLOCK, x.shape[3])


def _listed(blocks: KeyBlocks, start: int, stop: int) -> Listed:
    """Return [B, M], the blocks of keys of the queries from `start` to `stop`; None where that is no fewer than all."""
    before = -(-stop // KEY_BLOCK)
    return None if blocks is None or blocks.shape[2] >= before else blocks[:, start // QUERY_BLOCK]


def _chosen(
    x: Keys,
    cut: Shaped[Array, "B K blocks block Dh"],
    listed: Listed,
    stop: int,
) -> Float[Array, "B K s Dh"]:
    """Return the keys or values [B, K, s, Dh] that a block of queries reads, of x [B, K, T, Dh], cut into `cut`."""
    if listed is None:
        return x[:, :, :stop]
    found = jax.vmap(partial(jnp.take, axis=1, mode="clip"))(cut, listed)
    return from_bits(found.reshape(*x.shape[:2], -1, x.shape[3]))


def _add(
    total: Float32[Array, "B K blocks block Dh"],
    listed: Listed,
    stop: int,
    part: Float32[Array, "B K s Dh"],
) -> Float32[Array, "B K blocks block Dh"]:
    """Add the gradient [B, K, s, Dh] of what `_chosen` returns to the whole's, [B, K, T / KEY_BLOCK, KEY_BLOCK, Dh]."""
    if listed is None:
        rest = -stop % KEY_BLOCK
        part = jnp.pad(part, ((0, 0), (0, 0), (0, rest), (0, 0)))
        part = part.reshape(*part.shape[:2], -1, KEY_BLOCK, part.shape[3])
        return total.at[:, :, : part.shape[2]].add(part)
    part = part.reshape(*part.shape[:2], -1, KEY_BLOCK, part.shape[3])
    return jax.vmap(lambda total, index, part: total.at[:, index].add(part, mode="drop"))(total, listed, part)


def _scores(
    q: Float[Array, "B K G t Dh"],
    keys: Float[Array, "B K s Dh"],
    seen: Bool[Array, "B t s"],
    scale: float,
    softcap: float | None,
) -> tuple[Float32[Array, "B K G t s"], Float32[Array, "B K G t s"] | None]:
    """Return the masked scores [B, K, G, t, s] of one block, and the slope of the soft cap (None without)."""
    scores = dot(q, keys, ((4,), (3,)), ((0, 1), (0, 1))) * scale
    slope = None
    if softcap is not None:
        tanh = jnp.tanh(scores / softcap)
        scores, slope = softcap * tanh, 1.0 - tanh * tanh
    return jnp.where(seen[:, None, None], scores, _MASKED), slope


def _blocks(
    k: Keys,
    v: Keys,
    ends: PerToken,
    positions: PerToken,
    blocks: KeyBlocks,
    window: Scalar,
) -> Iterator[tuple[slice, Listed, Array, Array, Array]]:
    """Yield of each block of queries: its place, the list of its keys' blocks, its keys, its values, what it sees."""
    length = k.shape[2]
    cut_k, cut_v = _split(k), _split(v)
    for start in range(0, length, QUERY_BLOCK):
        stop = min(start + QUERY_BLOCK, length)
        listed = _listed(blocks, start, stop)
        columns = jnp.arange(stop)[None] if listed is None else listed[:, :, None] * KEY_BLOCK + jnp.arange(KEY_BLOCK)
        columns = jnp.broadcast_to(columns.reshape(columns.shape[0], -1), (k.shape[0], columns[0].size))
        seen = visible(jnp.arange(start, stop), columns, ends, positions, window)
        yield slice(start, stop), listed, _chosen(k, cut_k, listed, stop), _chosen(v, cut_v, listed, stop), seen


def _attend(
    q: Queries,
    k: Keys,
    v: Keys,
    ends: PerToken,
    positions: PerToken,
    blocks: KeyBlocks,
    window: Scalar,
    scale: float,
    softcap: float | None,
) -> tuple[Queries, Float32[Array, "B K G T"]]:
    outputs, sums = [], []
    for place, _, keys, values, seen in _blocks(k, v, ends, positions, blocks, window):
        scores, _ = _scores(q[:, :, :, place], keys, seen, scale, softcap)
        top = scores.max(-1, keepdims=True)
        weights = jnp.exp(scores - top)
        total = weights.sum(-1, keepdims=True)
        output = dot(weights.astype(q.dtype), values, ((4,), (2,)), ((0, 1), (0, 1)))
        outputs.append((output / total).astype(q.dtype))
        sums.append((top + jnp.log(total))[..., 0])
    return jnp.concatenate(outputs, 3), jnp.concatenate(sums, 3)


def _forward(
    q: Queries,
    k: Keys,
    v: Keys,
    ends: PerToken,
    positions: PerToken,
    blocks: KeyBlocks,
    window: Scalar,
    scale: float,
    softcap: float | None,
) -> tuple[Queries, tuple[Any, ...]]:
    output, sums = _attend(q, k, v, ends, positions, blocks, window, scale, softcap)
    # Not `saved`, whose inside the policy would not see from within this rule.
    output, sums = name_bits(output, "attention"), name_bits(sums, "attention_sums")
    return output, (q, k, v, ends, positions, blocks, window, output, sums)


def _backward(
    scale: float, softcap: float | None, residuals: tuple[Any, ...], gradient: Queries
) -> tuple[Queries, Keys, Keys, None, None, None, None]:
    q, k, v, ends, positions, blocks, window, output, sums = residuals
    gradient = gradient.astype(q.dtype)
    delta = (gradient.astype(jnp.float32) * output.astype(jnp.float32)).sum(-1, keepdims=True)
    dq = []
    dk = dv = jnp.zeros((*k.shape[:2], -(-k.shape[2] // KEY_BLOCK), KEY_BLOCK, k.shape[3]), jnp.float32)
    for place, listed, keys, values, seen in _blocks(k, v, ends, positions, blocks, window):
        queries, upstream = q[:, :, :, place], gradient[:, :, :, place]
        scores, slope = _scores(queries, keys, seen, scale, softcap)
        weights = jnp.exp(scores - sums[:, :, :, place, None])
        part = dot(weights.astype(q.dtype), upstream, ((2, 3), (2, 3)), ((0, 1), (0, 1)))
        dv = _add(dv, listed, place.stop, part)
        dweights = dot(upstream, values, ((4,), (3,)), ((0, 1), (0, 1)))
        dscores = weights * (dweights - delta[:, :, :, place]) * scale
        if slope is not None:
            dscores = dscores * slope
        dscores = dscores.astype(q.dtype)
        dq.append(dot(dscores, keys, ((4,), (2,)), ((0, 1), (0, 1))).astype(q.dtype))
        dk = _add(dk, listed, place.stop, dot(dscores, queries, ((2, 3), (2, 3)), ((0, 1), (0, 1))))
    dk, dv = (x.reshape(*x.shape[:2], -1, x.shape[4])[:, :, : k.shape[2]] for x in (dk, dv))
    return jnp.concatenate(dq, 3), dk.astype(k.dtype), dv.astype(v.dtype), None, None, None, None


tree_attention.defvjp(_forward, _backward)


def rotary_angles(
    positions: PerToken, frequencies: Float32[Array, " half"]
) -> tuple[Float32[Array, "B T half"], Float32[Array, "B T half"]]:
    """Return the cosines and sines [B, T, Dh / 2] of each position for the inverse wavelengths [Dh / 2]."""
    angles = positions[..., None].astype(jnp.float32) * frequencies
    return jnp.cos(angles), jnp.sin(angles)


def rotate(
    x: Float[Array, "B T H Dh"], cos: Float32[Array, "B T half"], sin: Float32[Array, "B T half"]
) -> Float[Array, "B T H Dh"]:
    """Rotate x [B, T, H, Dh], whose pairs stand half a head apart, as Hugging Face weights have them."""
    first, second = jnp.split(x.astype(jnp.float32), 2, -1)
    cos, sin = cos[:, :, None], sin[:, :, None]
    return jnp.concatenate([first * cos - second * sin, second * cos + first * sin], -1).astype(x.dtype)
