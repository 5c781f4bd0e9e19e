"""Attention over packed token trees: for each block of queries, over the blocks of keys that it sees.

Token i sees token j if and only if `j <= i < ends[j]`, and in a layer with a sliding window only if also
`positions[i] - positions[j] < window`. The backward pass is written by hand: it computes a block's weights again from
the saved log-sum-exp (as in FlashAttention, Dao et al., 2022, arXiv 2205.14135), and keeps every product in the compute
type.
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
"""Tokens in a block of queries, and in a block of keys. The scores of a block, [B, K, G, QUERY_BLOCK, keys], stay in a
processor's cache; all of them, [B, H, T, T], would not. Smaller blocks skip more keys, but make thinner products."""

Queries = Float[Array, "B K G T Dh"]
Keys = Float[Array, "B K T Dh"]  # and values
PerToken = Int32[Array | np.ndarray, "B T"]
KeyBlocks = Int32[Array | np.ndarray, "B Q M"] | None
Listed = Int32[Array | np.ndarray, "B M"] | None
Scalar = Int32[Array | np.ndarray, ""]

_MASKED = -1e30  # finite, because a row of nothing but -inf would give NaN


def visible(
    rows: Int32[Array, " t"],
    columns: Int32[Array, "B s"],
    ends: PerToken,
    positions: PerToken,
    window: Scalar,
) -> Bool[Array, "B t s"]:
    """Return whether each of the queries `rows` [t] sees each of the keys `columns` [B, s].

    `ends` and `positions` [B, T] are those of the batch; `window` is a number of tokens, 0 for none. No query sees a
    column that lies beyond the row.
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
    """Return the attention of q [B, K, G, T, Dh] over the keys and values k, v [B, K, T, Dh]: [B, K, G, T, Dh].

    `ends` and `positions` [B, T] describe the trees. `blocks` [B, Q, M] lists for each block of queries the blocks of
    keys that it reads (see `data.packing.visible_blocks`); without it, a block of queries reads all keys up to its last
    query. `window` is a number of tokens, 0 for none. Scores are multiplied by `scale`, then capped to
    `softcap * tanh(score / softcap)`.
    """
    return _attend(q, k, v, ends, positions, blocks, window, scale, softcap)[0]


def _split(x: Keys) -> Shaped[Array, "B K blocks block Dh"]:
    """Return keys or values in blocks of KEY_BLOCK tokens, as bits; the last block is filled up with zeros."""
    rest = -x.shape[2] % KEY_BLOCK
    x = jnp.pad(to_bits(x), ((0, 0), (0, 0), (0, rest), (0, 0)))
    return x.reshape(*x.shape[:2], -1, KEY_BLOCK, x.shape[3])


def _blocks_read(blocks: KeyBlocks, start: int, stop: int) -> Listed:
    """Return the blocks of keys that the queries from `start` to `stop` read; None where that is all before `stop`."""
    before = -(-stop // KEY_BLOCK)
    return None if blocks is None or blocks.shape[2] >= before else blocks[:, start // QUERY_BLOCK]


def _gather(
    x: Keys,
    blocks: Shaped[Array, "B K blocks block Dh"],
    listed: Listed,
    stop: int,
) -> Float[Array, "B K s Dh"]:
    """Return the keys or values that a block of queries reads, of all x, whose blocks are `blocks`."""
    if listed is None:
        return x[:, :, :stop]
    found = jax.vmap(partial(jnp.take, axis=1, mode="clip"))(blocks, listed)
    return from_bits(found.reshape(*x.shape[:2], -1, x.shape[3]))


def _scatter_add(
    total: Float32[Array, "B K blocks block Dh"],
    listed: Listed,
    stop: int,
    part: Float32[Array, "B K s Dh"],
) -> Float32[Array, "B K blocks block Dh"]:
    """Return the gradient `total` of all keys or values, with that of the part that `_gather` returned added to it."""
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
    """Return the masked scores of a block, and the derivative of the soft cap at each (None without a soft cap)."""
    scores = dot(q, keys, ((4,), (3,)), ((0, 1), (0, 1))) * scale
    derivative = None
    if softcap is not None:
        tanh = jnp.tanh(scores / softcap)
        scores, derivative = softcap * tanh, 1.0 - tanh * tanh
    return jnp.where(seen[:, None, None], scores, _MASKED), derivative


def _read_by_block(
    k: Keys,
    v: Keys,
    ends: PerToken,
    positions: PerToken,
    blocks: KeyBlocks,
    window: Scalar,
) -> Iterator[tuple[slice, Listed, Float[Array, "B K s Dh"], Float[Array, "B K s Dh"], Bool[Array, "B t s"]]]:
    """Yield for each block of queries: its place, the blocks of keys that it reads, their keys and values, its mask."""
    length = k.shape[2]
    key_blocks, value_blocks = _split(k), _split(v)
    for start in range(0, length, QUERY_BLOCK):
        stop = min(start + QUERY_BLOCK, length)
        listed = _blocks_read(blocks, start, stop)
        columns = jnp.arange(stop)[None] if listed is None else listed[:, :, None] * KEY_BLOCK + jnp.arange(KEY_BLOCK)
        columns = jnp.broadcast_to(columns.reshape(columns.shape[0], -1), (k.shape[0], columns[0].size))
        seen = visible(jnp.arange(start, stop), columns, ends, positions, window)
        keys, values = _gather(k, key_blocks, listed, stop), _gather(v, value_blocks, listed, stop)
        yield slice(start, stop), listed, keys, values, seen


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
    outputs, lse = [], []
    for place, _, keys, values, seen in _read_by_block(k, v, ends, positions, blocks, window):
        scores, _ = _scores(q[:, :, :, place], keys, seen, scale, softcap)
        top = scores.max(-1, keepdims=True)
        weights = jnp.exp(scores - top)
        total = weights.sum(-1, keepdims=True)
        output = dot(weights.astype(q.dtype), values, ((4,), (2,)), ((0, 1), (0, 1)))
        outputs.append((output / total).astype(q.dtype))
        lse.append((top + jnp.log(total))[..., 0])
    return jnp.concatenate(outputs, 3), jnp.concatenate(lse, 3)


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
    output, lse = _attend(q, k, v, ends, positions, blocks, window, scale, softcap)
    # The rematerialisation policy does not see inside `saved` from within this rule.
    output, lse = name_bits(output, "attention"), name_bits(lse, "attention_lse")
    return output, (q, k, v, ends, positions, blocks, window, output, lse)


def _backward(
    scale: float, softcap: float | None, residuals: tuple[Any, ...], gradient: Queries
) -> tuple[Queries, Keys, Keys, None, None, None, None]:
    q, k, v, ends, positions, blocks, window, output, lse = residuals
    gradient = gradient.astype(q.dtype)
    delta = (gradient.astype(jnp.float32) * output.astype(jnp.float32)).sum(-1, keepdims=True)
    dq = []
    dk = dv = jnp.zeros((*k.shape[:2], -(-k.shape[2] // KEY_BLOCK), KEY_BLOCK, k.shape[3]), jnp.float32)
    for place, listed, keys, values, seen in _read_by_block(k, v, ends, positions, blocks, window):
        queries, upstream = q[:, :, :, place], gradient[:, :, :, place]
        scores, derivative = _scores(queries, keys, seen, scale, softcap)
        weights = jnp.exp(scores - lse[:, :, :, place, None])
        part = dot(weights.astype(q.dtype), upstream, ((2, 3), (2, 3)), ((0, 1), (0, 1)))
        dv = _scatter_add(dv, listed, place.stop, part)
        dweights = dot(upstream, values, ((4,), (3,)), ((0, 1), (0, 1)))
        dscores = weights * (dweights - delta[:, :, :, place]) * scale
        if derivative is not None:
            dscores = dscores * derivative
        dscores = dscores.astype(q.dtype)
        dq.append(dot(dscores, keys, ((4,), (2,)), ((0, 1), (0, 1))).astype(q.dtype))
        dk = _scatter_add(dk, listed, place.stop, dot(dscores, queries, ((2, 3), (2, 3)), ((0, 1), (0, 1))))
    dk, dv = (x.reshape(*x.shape[:2], -1, x.shape[4])[:, :, : k.shape[2]] for x in (dk, dv))
    return jnp.concatenate(dq, 3), dk.astype(k.dtype), dv.astype(v.dtype), None, None, None, None


tree_attention.defvjp(_forward, _backward)


def rotary_angles(
    positions: PerToken, frequencies: Float32[Array, " half"]
) -> tuple[Float32[Array, "B T half"], Float32[Array, "B T half"]]:
    """Return the cosines and sines [B, T, Dh / 2] of positions [B, T], for frequencies [Dh / 2] in radians a token."""
    angles = positions[..., None].astype(jnp.float32) * frequencies
    return jnp.cos(angles), jnp.sin(angles)


def rotate(
    x: Float[Array, "B T H Dh"], cos: Float32[Array, "B T half"], sin: Float32[Array, "B T half"]
) -> Float[Array, "B T H Dh"]:
    """Return x [B, T, H, Dh] with rotary position embeddings (Su et al., 2021, arXiv 2104.09864).

    The two elements of a pair stand Dh / 2 apart, as in Hugging Face's weights. `cos` and `sin` are [B, T, Dh / 2].
    """
    first, second = jnp.split(x.astype(jnp.float32), 2, -1)
    cos, sin = cos[:, :, None], sin[:, :, None]
    return jnp.concatenate([first * cos - second * sin, second * cos + first * sin], -1).astype(x.dtype)
