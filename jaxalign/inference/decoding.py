"""Decoding: the model layer by layer, with the keys and values of what was read before."""

import math
from collections.abc import Sequence
from functools import partial
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
from jax import lax

from jaxalign.inference.kv_cache import KVCache
from jaxalign.inference.logits import sample_tokens
from jaxalign.models.architecture import Architecture
from jaxalign.models.attention import rotary_angles
from jaxalign.models.linear import compute_type, transposed_product
from jaxalign.models.lora import LoraParams
from jaxalign.models.precision import dot, from_bits, to_bits
from jaxalign.models.transformer import Attend, Embedding, Layer, Norm, rotary_frequencies

PREFILL_QUERIES = 256
"""Queries of a block in prefill: scores are [B, K, G, QUERIES, keys] at most."""


_MASKED = -1e30


def hidden_states(
    architecture: Architecture,
    params: dict[str, Any],
    adapter: LoraParams | None,
    tokens: jax.Array,
    positions: jax.Array,
    attends: Sequence[Attend],
) -> jax.Array:
    """Return the normalised hidden states [B, T, D] of tokens and positions [B, T].

    Args:
        architecture: the decoder's.
        params: the base, `by_layer`.
        adapter: effective (its scale multiplied in), or None for the bare base.
        tokens: token ids.
        positions: their places.
        attends: each layer's attention, which knows the keys that it reads and takes note of the new ones.
    """
    dtype = compute_type(params)
    x = Embedding(architecture.vocab_size, architecture.width, dtype).apply({"params": params["embedding"]}, tokens)
    if architecture.embed_scale != 1.0:
        x = x * jnp.asarray(architecture.embed_scale, dtype)
    # Without the barrier XLA computes the sines anew in every layer.
    angles = lax.optimization_barrier(rotary_angles(positions, jnp.asarray(rotary_frequencies(architecture))))
    for index, (layer, attend) in enumerate(zip(params["layers"], attends, strict=True)):
        variables = {"params": layer}
        if adapter is not None:
            variables["lora"] = jax.tree.map(lambda leaf, index=index: leaf[index], adapter["layers"])
        per_layer = (index, architecture.windows[index])
        x, _ = Layer(architecture).apply(variables, x, per_layer, attend, angles, None)
    return Norm(architecture.norm_eps).apply({"params": params["norm"]}, x)  # type: ignore[return-value]


def merged_attention(
    q: jax.Array,
    parts: Sequence[tuple[KVCache, jax.Array]],
    scale: float,
    softcap: float | None,
) -> jax.Array:
    """Return the attention [B, K, G, T, Dh] of q over several sets of keys at once, under one softmax.

    Each part is (keys, mask): which of its keys a query sees, bool broadcastable to [B, 1, 1, T, s].
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


def _product(left: jax.Array, keys: jax.Array, over: str) -> jax.Array:
    """Contract left [B, K, G, T, n] with keys [(B,) K, (T,) s, Dh] over `s` or `d`, in float32, to [B, K, G, T, m]."""
    # What the keys are told apart by comes first, and as one axis: XLA's CPU backend refuses some bfloat16 products
    # with three of them.
    order = {3: (1, 0, 2, 3, 4), 4: (0, 1, 2, 3, 4), 5: (0, 1, 3, 2, 4)}[keys.ndim]
    turned = left.transpose(order)
    batch = math.prod(keys.shape[:-2])
    flat = turned.reshape(batch, -1, left.shape[-1])
    product = dot(flat, keys.reshape(batch, *keys.shape[-2:]), ((2,), (2 if over == "d" else 1,)), ((0,), (0,)))
    return product.reshape(*turned.shape[:-1], product.shape[-1]).transpose(order)  # a swap undoes itself


@flax.struct.dataclass
class DecodeState:
    """The rows that decode together, [A, S, N] but for what is said of a whole slot.

    `token` was chosen last and is read next; `read` counts the tokens of this row that have been read; `active` rows
    go on until they have chosen `limit` tokens or an end token. `key` is uint32 [A, S, N, 2]; `prompt` is [A, S], the
    keys that the slot's prompt has, and `prefix` the number of those that all share, int32 scalar.
    """

    token: jax.Array
    read: jax.Array
    active: jax.Array
    limit: jax.Array
    key: jax.Array
    prompt: jax.Array
    prefix: jax.Array


@flax.struct.dataclass
class SamplingMetadata:
    """Scalars of the choice of tokens (see `sample_tokens`), and the end tokens [E]."""

    temperature: jax.Array
    top_k: jax.Array
    top_p: jax.Array
    ends: jax.Array


def prefill(
    architecture: Architecture,
    params: dict[str, Any],
    adapters: LoraParams | None,
    number: jax.Array,
    prefix: list[KVCache],
    prefix_length: jax.Array,
    tokens: jax.Array,
) -> list[KVCache]:
    """Return for each layer the Keys [P, K, T, Dh] of prompts.

    Args:
        architecture: static.
        params: the base, `by_layer`.
        adapters: stacked [A, ...] and effective, or None.
        number: int32 scalar, which of the adapters reads.
        prefix: Keys [A, K, s, Dh] of what stands before every prompt, or an empty list.
        prefix_length: int32 scalar, how many of those keys there really are.
        tokens: int32 [P, T]; what stands behind a prompt's end does no harm, for nothing before it sees it.
    """
    adapter, prefix = jax.tree.map(lambda leaf: leaf[number], (adapters, prefix))
    length = tokens.shape[1]
    place = jnp.arange(length)
    positions = jnp.broadcast_to(prefix_length + place, tokens.shape)
    found: list[KVCache] = []

    def attend(layer, q, k, v, window, scale, softcap):
        own = KVCache(to_bits(k), to_bits(v))
        found.append(own)
        outputs = []
        for start in range(0, length, PREFILL_QUERIES):
            stop = min(start + PREFILL_QUERIES, length)
            seen = jax.tree.map(lambda x, stop=stop: x[:, :, :stop], own)
            parts = [(seen, _recent(place[start:stop, None] - place[None, :stop], window))]
            if prefix:
                before = jnp.arange(prefix[layer].k.shape[-2])
                distance = prefix_length + place[start:stop, None] - before
                parts.append((prefix[layer], _recent(distance, window) & (before < prefix_length)))
            outputs.append(merged_attention(q[:, :, :, start:stop], parts, scale, softcap))
        return jnp.concatenate(outputs, 3)

    hidden_states(
        architecture, params, adapter, tokens, positions, [partial(attend, n) for n in range(architecture.layers)]
    )
    return found


def _recent(distance: jax.Array, window: int) -> jax.Array:
    """Return which keys, at a distance from a query, it may see."""
    return (distance >= 0) & (distance < window) if window else distance >= 0


def decode(
    architecture: Architecture,
    steps: int,
    filtered: bool,
    params: dict[str, Any],
    adapters: LoraParams | None,
    prefix: list[KVCache],
    prompt: list[KVCache],
    sample: list[KVCache],
    rows: DecodeState,
    start: jax.Array,
    knobs: SamplingMetadata,
) -> tuple[list[KVCache], jax.Array]:
    """Let the active rows choose up to `steps` tokens each; donate `sample`.

    Args:
        architecture: static; the decoder's.
        steps: static; it ends sooner when no row is active any more.
        filtered: static; whether top-k or top-p is asked for.
        params: the base, `by_layer`.
        adapters: stacked [A, ...] and effective, or None (then A is 1).
        prefix: Keys [A, K, s, Dh] for each layer, or an empty list.
        prompt: Keys [A, S, K, s, Dh] for each layer.
        sample: Keys [A, S, K, N, s, Dh] for each layer: rings, in which step t writes to place t modulo s; `steps`
            divides s.
        rows: where the rows stand.
        start: int32 scalar, the place in the rings of the first step, a multiple of `steps`.
        knobs: how tokens are chosen.

    Returns:
        The samples' keys, and int32 [steps, A, S, N]: the tokens that were chosen, -1 where a row was not active.
    """
    ring = sample[0].k.shape[-2]
    # Keys of this call's steps have a buffer of their own, so that the large rings are only read in the loop, and
    # written once behind it.
    newest = [jax.tree.map(lambda x: jnp.zeros_like(x[..., :steps, :]), keys) for keys in sample]
    single = rows.token.shape[0] == 1
    if single:  # the loop would copy what it carries with an axis of one
        newest = jax.tree.map(lambda leaf: leaf[0], newest)

    def forward(adapter, prefix, prompt, sample, newest, token, read, lengths, done):
        """One adapter's next logits [S, N, V] and its `newest` keys."""
        place = rows.prefix + lengths[:, None] + read
        written: list[KVCache] = []

        def attend(layer, q, k, v, window, scale, softcap):
            def write(keys, new):
                return lax.dynamic_update_slice_in_dim(keys, to_bits(new)[..., None, :], done, 3)

            own = KVCache(write(newest[layer].k, k), write(newest[layer].v, v))
            written.append(own)
            parts = [(own, _recent(done - jnp.arange(steps), window))]
            # All of a row's keys that stand in the ring were read just before this call's.
            age = (start - 1 - jnp.arange(ring)) % ring
            seen = (age < read[..., None] - done) & _recent(age + 1 + done, window)
            parts.append((sample[layer], seen[:, None, None]))
            slot = jnp.arange(prompt[layer].k.shape[-2])
            seen = (slot < lengths[:, None])[:, None]
            if window:
                seen &= _recent((lengths[:, None] + read)[..., None] - slot, window)
            parts.append((prompt[layer], seen[:, None, None]))
            if prefix:
                before = jnp.arange(prefix[layer].k.shape[-2])
                seen = (before < rows.prefix)[None, None]
                if window:
                    seen &= _recent(place[..., None] - before, window)
                parts.append((prefix[layer], seen[:, None, None]))
            return merged_attention(q, parts, scale, softcap)

        attends = [partial(attend, layer) for layer in range(architecture.layers)]
        hidden = hidden_states(architecture, params, adapter, token, place, attends)
        logits = transposed_product(hidden, params["head"])
        if architecture.logit_softcap:
            logits = architecture.logit_softcap * jnp.tanh(logits / architecture.logit_softcap)
        return logits, written

    def step(carry):
        done, newest, token, read, active, chosen = carry
        arguments = (adapters, prefix, prompt, sample, newest, token, read, rows.prompt)
        if single:
            lead: tuple[Any, Any, Any, Any] = (adapters, prefix, prompt, sample)
            a, b, c, d = jax.tree.map(lambda leaf: leaf[0], lead)
            logits, newest = forward(a, b, c, d, newest, token[0], read[0], rows.prompt[0], done)
            logits = logits[None]
        else:
            logits, newest = jax.vmap(forward, in_axes=(0,) * len(arguments) + (None,))(*arguments, done)
        flat = logits.reshape(-1, logits.shape[-1])
        keys = jax.vmap(jax.random.fold_in)(jax.random.wrap_key_data(rows.key.reshape(-1, 2)), read.reshape(-1))
        uniform = jax.vmap(jax.random.uniform)(keys)
        token = sample_tokens(flat, uniform, knobs.temperature, knobs.top_k, knobs.top_p, filtered=filtered)
        token = token.reshape(read.shape)
        chosen = chosen.at[done].set(jnp.where(active, token, -1))
        read = read + 1
        active = active & (read < rows.limit) & (token[..., None] != knobs.ends).all(-1)
        return done + 1, newest, token, read, active, chosen

    def going(carry):
        return (carry[0] < steps) & carry[4].any()

    chosen = jnp.full((steps, *rows.token.shape), -1, jnp.int32)
    carry = (jnp.int32(0), newest, rows.token, rows.read, rows.active, chosen)
    _, newest, _, _, _, chosen = lax.while_loop(going, step, carry)
    if single:
        newest = jax.tree.map(lambda leaf: leaf[None], newest)
    sample = jax.tree.map(lambda keys, new: lax.dynamic_update_slice_in_dim(keys, new, start, 4), sample, newest)
    return sample, chosen


prefill_program = jax.jit(prefill, static_argnums=0)


decode_program = jax.jit(decode, static_argnums=(0, 1, 2), donate_argnums=7)
