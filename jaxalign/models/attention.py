"""Attention over packed token trees: for each block of queries, over the blocks of keys that it sees.

Token i sees token j if and only if `j <= i < ends[j]`, and in a layer with a sliding window only if also
`positions[i] - positions[j] < window`. The backward pass is written by hand: it computes a block's weights again from
the saved log-sum-exp (as in FlashAttention, Dao et al., 2022, arXiv 2205.14135), and keeps every product in the compute
type.
"""

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Float32, Int32, Shaped

from jaxalign.models.precision import dot, from_bits, name_bits, to_bits
from jaxalign.parallel.processor import on_cpu

QUERY_BLOCK, KEY_BLOCK = 64, 32
"""Tokens in a block of queries, and in a block of keys. The scores of a block, [B, K, G, QUERY_BLOCK, keys], stay in a
processor's cache; all of them, [B, H, T, T], would not. Smaller blocks skip more keys, but make thinner products."""

UNROLLED = 16
"""A row of more blocks of queries than this one goes through loops, so that its program does not grow with its length.
Below, a CPU has each block written out, and computes several at once. Others compile slowly, and have all in loops."""

Queries = Float[Array, "B K G T Dh"]
Keys = Float[Array, "B K T Dh"]  # and values
PerToken = Int32[Array | np.ndarray, "B T"]
KeyBlocks = Int32[Array | np.ndarray, "B Q M"] | None
Listed = Int32[Array | np.ndarray, "B M"] | None
Scalar = Int32[Array | np.ndarray, ""]

_MASKED = -1e30  # finite, because a row of nothing but -inf would give NaN


def visible(
    rows: Int32[Array, " t"], columns: Int32[Array, "B s"], ends: PerToken, positions: PerToken, window: Scalar
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


@dataclasses.dataclass(frozen=True)
class _Span:
    """Blocks of queries that read equally many keys, so that a loop can go over them."""

    first: int  # the number of the first block
    count: int
    size: int  # the number of queries in each block
    reach: int | None  # they read the keys before this one; None if each reads its listed blocks of keys


def _spans(length: int, blocks: KeyBlocks) -> list[_Span]:
    """Return the blocks of queries of a row: each alone, or in a long row many together.

    A block reads its listed blocks of keys, unless these are all before its last query. Those that read all are taken
    together in growing numbers (8, 8, 16, 32, ...; not on a CPU: in two), and read what the last one does, masked.
    """
    count, keys = -(-length // QUERY_BLOCK), length if blocks is None else blocks.shape[2] * KEY_BLOCK
    listed = count if keys >= length else keys // QUERY_BLOCK
    firsts = range(count)
    cpu = on_cpu()
    if count > (UNROLLED if cpu else 0):
        more = [8 << n for n in range((listed - 1).bit_length() - 3)] if cpu else [listed // 2] * (listed >= UNROLLED)
        firsts = sorted(first for first in {0, *more, listed, length // QUERY_BLOCK} if first < count)
    spans = []
    for first, after in zip(firsts, [*firsts[1:], count], strict=True):
        size = min(QUERY_BLOCK, length - first * QUERY_BLOCK)
        spans.append(_Span(first, after - first, size, None if first >= listed else min(after * QUERY_BLOCK, length)))
    return spans


def _gather(
    x: Keys,
    blocks: Shaped[Array, "B K blocks block Dh"],
    listed: Listed,
    stop: int | None,
) -> Float[Array, "B K s Dh"]:
    """Return the keys or values that a block of queries reads, of all x, whose blocks are `blocks`."""
    if listed is None:
        return x[:, :, :stop]
    found = jax.vmap(partial(jnp.take, axis=1, mode="clip"))(blocks, listed)
    return from_bits(found.reshape(*x.shape[:2], -1, x.shape[3]))


def _scatter_add(
    total: Float32[Array, "B K blocks block Dh"],
    listed: Listed,
    part: Float32[Array, "B K s Dh"],
) -> Float32[Array, "B K blocks block Dh"]:
    """Return the gradient `total` of all keys or values plus the gradient of the part that `_gather` returned."""
    if listed is None:
        rest = -part.shape[2] % KEY_BLOCK
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


def _reader(
    k: Keys,
    v: Keys,
    ends: PerToken,
    positions: PerToken,
    blocks: KeyBlocks,
    window: Scalar,
) -> Callable[[_Span, Any], tuple[Listed, Float[Array, "B K s Dh"], Float[Array, "B K s Dh"], Bool[Array, "B t s"]]]:
    """Return a function of a span and the number of one of its blocks of queries, which may be traced.

    It returns the blocks of keys that are read (None for all up to the reach), their keys and values, and the mask.
    """
    key_blocks, value_blocks = _split(k), _split(v)

    def read(span: _Span, number: Any) -> tuple[Any, ...]:
        listed = None if span.reach is not None or blocks is None else jnp.asarray(blocks)[:, number]
        columns = jnp.arange(span.reach or 0)[None]
        if listed is not None:
            columns = listed[:, :, None] * KEY_BLOCK + jnp.arange(KEY_BLOCK)
        columns = jnp.broadcast_to(columns.reshape(columns.shape[0], -1), (k.shape[0], columns[0].size))
        rows = number * QUERY_BLOCK + jnp.arange(span.size)
        seen = visible(rows, columns, ends, positions, window)
        return listed, _gather(k, key_blocks, listed, span.reach), _gather(v, value_blocks, listed, span.reach), seen

    return read


def _queries(x: Shaped[Array, "B K G T *_"], span: _Span, number: Any) -> Shaped[Array, "B K G t *_"]:
    """Return the part of a block of queries."""
    return jax.lax.dynamic_slice_in_dim(x, number * QUERY_BLOCK, span.size, 3)


def _over(span: _Span, function: Callable[[Any, Any], tuple[Any, Any]], carry: Any) -> tuple[Any, Any]:
    """Return the last carry, and the results [B, K, G, t, ...] of all blocks of a span one behind the other."""
    if span.count == 1:
        return function(carry, span.first)
    carry, stacked = jax.lax.scan(function, carry, span.first + jnp.arange(span.count))

    def joined(x: Shaped[Array, "blocks B K G t *rest"]) -> Shaped[Array, "B K G T *rest"]:
        return jnp.moveaxis(x, 0, 3).reshape(*x.shape[1:4], -1, *x.shape[5:])

    return carry, jax.tree.map(joined, stacked)


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
    read, parts = _reader(k, v, ends, positions, blocks, window), []
    for span in _spans(q.shape[3], blocks):

        def one(carry: None, number: Any, span: _Span = span) -> tuple[None, tuple[Any, Any]]:
            _, keys, values, seen = read(span, number)
            scores, _ = _scores(_queries(q, span, number), keys, seen, scale, softcap)
            top = scores.max(-1, keepdims=True)
            weights = jnp.exp(scores - top)
            total = weights.sum(-1, keepdims=True)
            output = dot(weights.astype(q.dtype), values, ((4,), (2,)), ((0, 1), (0, 1)))
            return carry, ((output / total).astype(q.dtype), (top + jnp.log(total))[..., 0])

        parts.append(_over(span, one, None)[1])
    outputs, lse = zip(*parts, strict=True)
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
    sums = (jnp.zeros((*k.shape[:2], -(-k.shape[2] // KEY_BLOCK), KEY_BLOCK, k.shape[3]), jnp.float32),) * 2
    read = _reader(k, v, ends, positions, blocks, window)
    for span in _spans(q.shape[3], blocks):

        def one(sums: tuple[Array, Array], number: Any, span: _Span = span) -> tuple[tuple[Array, Array], Queries]:
            listed, keys, values, seen = read(span, number)
            queries, upstream = _queries(q, span, number), _queries(gradient, span, number)
            scores, derivative = _scores(queries, keys, seen, scale, softcap)
            weights = jnp.exp(scores - _queries(lse, span, number)[..., None])
            part = dot(weights.astype(q.dtype), upstream, ((2, 3), (2, 3)), ((0, 1), (0, 1)))
            dv = _scatter_add(sums[1], listed, part)
            dweights = dot(upstream, values, ((4,), (3,)), ((0, 1), (0, 1)))
            dscores = weights * (dweights - _queries(delta, span, number)) * scale
            if derivative is not None:
                dscores = dscores * derivative
            dscores = dscores.astype(q.dtype)
            part = dot(dscores, queries, ((2, 3), (2, 3)), ((0, 1), (0, 1)))
            dk = _scatter_add(sums[0], listed, part)
            return (dk, dv), dot(dscores, keys, ((4,), (2,)), ((0, 1), (0, 1))).astype(q.dtype)

        sums, part = _over(span, one, sums)
        dq.append(part)
    dk, dv = sums
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
