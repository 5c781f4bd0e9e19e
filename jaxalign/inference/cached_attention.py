"""Attention over several KV caches at once, and which of their places a query sees.

S slots (each holds a prompt), N rows of a slot (each holds a sample of the prompt), B rows of a call, T tokens,
K key/value heads, G query heads of each, Dh width of a head, s places of a KV cache.
"""

import math
from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Float32, Int32

from jaxalign.inference.kv_cache import KVCache
from jaxalign.models.precision import dot, from_bits

_MASKED = -1e30


def merged_attention(
    q: Float[Array, "B K G T Dh"],
    parts: Sequence[tuple[KVCache, Bool[Array, "..."]]],
    scale: float,
    softcap: float | None,
) -> Float[Array, "B K G T Dh"]:
    """Return the attention of queries over the keys of several KV caches, under one softmax.

    Args:
        q: the queries.
        parts: each a KV cache, and a mask that is true where a query sees a key. The cache is [K, s, Dh],
            [B, K, s, Dh] or [B, K, T, s, Dh]; the mask can be broadcast to [B, 1, 1, T, s].
        scale: the number by which scores are multiplied.
        softcap: scores are then capped to `softcap * tanh(score / softcap)`; None means no cap.
    """
    scores = []
    for keys, mask in parts:
        product = _product(q, from_bits(keys.k), "d") * scale
        if softcap is not None:
            product = softcap * jnp.tanh(product / softcap)
        scores.append(jnp.where(mask, product, _MASKED))
    top = jnp.stack([part.max(-1) for part in scores]).max(0)[..., None]
    weights = [jnp.exp(part - top) for part in scores]
    total = sum(part.sum(-1, keepdims=True) for part in weights)
    outputs = [
        _product(part.astype(q.dtype), from_bits(keys.v), "s") for part, (keys, _) in zip(weights, parts, strict=True)
    ]
    return (sum(outputs[1:], outputs[0]) / total).astype(q.dtype)


def _product(
    left: Float[Array, "B K G T n"], keys: Float[Array, "*leading s Dh"], over: str
) -> Float32[Array, "B K G T m"]:
    """Contract `left` with keys or values [(B,) K, (T,) s, Dh] over their axis `s` or `d`."""
    # The batch axes (all axes of the keys but the last two) come first, joined to one axis, because XLA's CPU backend
    # refuses some bfloat16 products with three of them.
    order = {3: (1, 0, 2, 3, 4), 4: (0, 1, 2, 3, 4), 5: (0, 1, 3, 2, 4)}[keys.ndim]
    turned = left.transpose(order)
    batch = math.prod(keys.shape[:-2])
    flat = turned.reshape(batch, -1, left.shape[-1])
    product = dot(flat, keys.reshape(batch, *keys.shape[-2:]), ((2,), (2 if over == "d" else 1,)), ((0,), (0,)))
    return product.reshape(*turned.shape[:-1], product.shape[-1]).transpose(order)  # each order is its own inverse


Window = int | Int32[Array, ""]
"""The sliding window of a layer in tokens, 0 for none; an array where a loop runs over layers that differ."""


def recent(distance: Int32[Array, "*shape"], window: Window) -> Bool[Array, "*shape"]:
    """Return whether a query sees keys that stand `distance` places before it; a window of 0 means no window."""
    if isinstance(window, int):
        return (distance >= 0) & (distance < window) if window else distance >= 0
    return (distance >= 0) & ((window == 0) | (distance < window))


def _windowless(window: Window) -> bool:
    return isinstance(window, int) and window == 0


def seen_in_ring(
    read: Int32[Array, "S N"], done: Int32[Array, ""], start: Int32[Array, ""], ring: int, window: Window
) -> Bool[Array, "S N {ring}"]:
    """Return which places of its ring each row sees.

    A row has read `read` tokens, `done` of them in this call. The keys of the others are in the ring, in the places
    right before `start`.
    """
    age = (start - 1 - jnp.arange(ring)) % ring
    return (age < read[..., None] - done) & recent(age + 1 + done, window)


def seen_in_prompt(
    lengths: Int32[Array, " S"], read: Int32[Array, "S N"], places: int, window: Window
) -> Bool[Array, "S _ {places}"]:
    """Return which places of its slot's prompt each row sees: [S, N, places], or [S, 1, places] without a window."""
    place = jnp.arange(places)
    seen = (place < lengths[:, None])[:, None]
    if not _windowless(window):
        seen &= recent((lengths[:, None] + read)[..., None] - place, window)
    return seen


def seen_in_prefix(
    length: Int32[Array | np.ndarray, ""], positions: Int32[Array, "S N"], places: int, window: Window
) -> Bool[Array, "_ _ {places}"]:
    """Return which places of the prefix each row sees: [S, N, places], or [1, 1, places] without a window."""
    place = jnp.arange(places)
    seen = (place < length)[None, None]
    if not _windowless(window):
        seen &= recent(positions[..., None] - place, window)
    return seen
