"""Prefill and decoding: the model runs layer by layer, with KV caches of the tokens that it has read before.

A adapters, S slots of an adapter (each holds a prompt), N rows of a slot (each holds a sample of the prompt), P prompts
of a prefill, T tokens, K key/value heads, G query heads of each, Dh width of a head, s places of a KV cache.
"""

from collections.abc import Callable, Sequence
from typing import Any, no_type_check

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float, Float32, Int32, Shaped, UInt32

from jaxalign.inference.cached_attention import (
    Window,
    merged_attention,
    recent,
    seen_in_prefix,
    seen_in_prompt,
    seen_in_ring,
)
from jaxalign.inference.kv_cache import CACHE_AXES, Caches, KVCache
from jaxalign.inference.logits import sample_tokens
from jaxalign.inference.not_finite import NOT_FINITE
from jaxalign.inference.sampling_params import SamplingParams
from jaxalign.models.architecture import Architecture
from jaxalign.models.attention import rotary_angles
from jaxalign.models.linear import compute_type, transposed_product
from jaxalign.models.lora import LoraParams, adapted_layers, on_all_layers
from jaxalign.models.precision import to_bits
from jaxalign.models.transformer import Embedding, Layer, Norm, head_kernel, rotary_frequencies
from jaxalign.parallel.rules import Placement, constrained

PREFILL_QUERIES = 256
"""The number of queries in a block of prefill. It limits the scores in memory to [B, K, G, PREFILL_QUERIES, keys]."""


CachedAttend = Callable[[Any, Array, Array, Array, Window, float, float | None], tuple[Array, KVCache]]
"""Attention of a layer: from (its KV caches, q, k, v, window, scale, softcap) to (result, new keys)."""

Carry = tuple[
    Int32[Array, ""],
    Caches,
    Int32[Array, "A S N"],
    Int32[Array, "A S N"],
    Bool[Array, "A S N"],
    Int32[Array, "steps A S N"],
]
"""What a decode step hands to the next one: (steps done, the keys of these steps, `token`, `read` and `active` of
`DecodeState`, the chosen tokens)."""


def hidden_states(
    architecture: Architecture,
    params: dict[str, Any],
    adapter: LoraParams | None,
    tokens: Int32[Array, "B T"],
    positions: Int32[Array, "B T"],
    attend: CachedAttend,
    caches: Any,
) -> tuple[Float[Array, "B T D"], Any]:
    """Return the normalised hidden states of tokens, and the new keys of all layers, as `caches` has the old ones.

    Args:
        architecture: the decoder's architecture.
        params: the base's weights, `by_layer` or stacked.
        adapter: an effective adapter (its scale is multiplied in), or None for the bare base.
        tokens: token ids.
        positions: the position of each token on its path.
        attend: the attention of every layer.
        caches: its KV caches: for weights by layer a list, for stacked weights a pytree with the layers in front.

    With stacked weights, the adapter has all layers (`on_all_layers`).
    """
    dtype = compute_type(params)
    x = Embedding(architecture.vocab_size, architecture.width, dtype).apply({"params": params["embedding"]}, tokens)
    if architecture.embed_scale != 1.0:
        x = x * jnp.asarray(architecture.embed_scale, dtype)
    # Without the barrier, XLA computes the sines again in every layer.
    angles = lax.optimization_barrier(rotary_angles(positions, jnp.asarray(rotary_frequencies(architecture))))
    lora = {} if adapter is None else {"lora": adapter["layers"]}

    def layer(x: Any, weights: Any, lora: Any, window: Window, cache: Any) -> tuple[Any, KVCache]:
        new: list[KVCache] = []

        def keep(*arguments: Any) -> Array:
            y, own = attend(cache, *arguments)
            new.append(own)
            return y

        x, _ = Layer(architecture).apply({"params": weights, **lora}, x, (0, window), keep, angles, None)
        return x, new[0]

    if isinstance(params["layers"], list):
        new: Any = []
        first = architecture.layers - adapted_layers(lora)
        for index, (weights, cache) in enumerate(zip(params["layers"], caches, strict=True)):
            own = {} if index < first else jax.tree.map(lambda leaf, index=index: leaf[index - first], lora)
            x, keys = layer(x, weights, own, architecture.windows[index], cache)
            new.append(keys)
    else:
        first, *others = architecture.windows
        windows = jnp.asarray(architecture.windows, jnp.int32)

        def body(x: Any, one: Any) -> tuple[Any, KVCache]:
            weights, own, window, cache = one
            return layer(x, weights, own, window if any(first != other for other in others) else first, cache)

        x, new = lax.scan(body, x, (params["layers"], lora, windows, caches))
    return Norm(architecture.norm_eps).apply({"params": params["norm"]}, x), new  # type: ignore[return-value]


@no_type_check  # while JAX traces, it fills the fields with other things than arrays
@flax.struct.dataclass
class DecodeState:
    """The state of all rows that decode together."""

    token: Int32[Array | np.ndarray, "A S N"]
    """The token that the row reads next: the last one of the prompt at first, then the one that was chosen last."""
    read: Int32[Array | np.ndarray, "A S N"]
    """The number of tokens that the row has read: the last one of the prompt, and those of its sample."""
    active: Bool[Array | np.ndarray, "A S N"]
    """Whether the row chooses tokens."""
    limit: Int32[Array | np.ndarray, "A S N"]
    """The row stops after this number of tokens, or after an end token."""
    key: UInt32[Array | np.ndarray, "A S N 2"]
    """The sample's random key."""
    prompt: Int32[Array | np.ndarray, "A S"]
    """The number of keys of the slot's prompt."""
    prefix: Int32[Array | np.ndarray, ""]
    """The number of keys of the common prefix."""


@no_type_check
@flax.struct.dataclass
class SamplingMetadata:
    """The sampling parameters (see `sample_tokens`), and the E end tokens."""

    temperature: Float32[Array | np.ndarray, ""]
    top_k: Int32[Array | np.ndarray, ""]
    top_p: Float32[Array | np.ndarray, ""]
    ends: Int32[Array | np.ndarray, " E"]


def sampling_metadata(sampling: SamplingParams, ends: Sequence[int]) -> SamplingMetadata:
    """Return the sampling parameters and the end tokens as arrays of NumPy, which several processes may share."""
    return SamplingMetadata(
        np.asarray(sampling.temperature, np.float32),
        np.asarray(sampling.top_k, np.int32),
        np.asarray(sampling.top_p, np.float32),
        np.array(ends, np.int32),
    )


def prefill(
    architecture: Architecture,
    params: dict[str, Any],
    adapters: LoraParams | None,
    number: Int32[Array, ""],
    prefix: Caches,
    prefix_length: Int32[Array, ""],
    tokens: Int32[Array, "P T"],
) -> Caches:
    """Return the KV cache [P, K, T, Dh] of prompts for each layer.

    Args:
        architecture: the decoder's architecture; static.
        params: the base's weights, `by_layer` or stacked.
        adapters: a stack [A, ...] of effective adapters, or None for the bare base.
        number: the index of the adapter that reads.
        prefix: for each layer the KV cache [A, K, s, Dh] of the tokens before every prompt; an empty list for none.
        prefix_length: the number of tokens of the prefix; its cache may have more places.
        tokens: the prompts. Any tokens may follow after a prompt's end, because the prompt does not see them.
    """
    if not isinstance(params["layers"], list):
        adapters = on_all_layers(adapters, architecture.layers)
    adapter, prefix = jax.tree.map(lambda leaf: leaf[number], (adapters, prefix))
    length = tokens.shape[1]
    place = jnp.arange(length)
    positions = jnp.broadcast_to(prefix_length + place, tokens.shape)

    def attend(
        before: KVCache | None,
        q: Float[Array, "P K G T Dh"],
        k: Float[Array, "P K T Dh"],
        v: Float[Array, "P K T Dh"],
        window: Window,
        scale: float,
        softcap: float | None,
    ) -> tuple[Float[Array, "P K G T Dh"], KVCache]:
        own = KVCache(to_bits(k), to_bits(v))
        outputs = []
        for start in range(0, length, PREFILL_QUERIES):
            stop = min(start + PREFILL_QUERIES, length)
            seen = jax.tree.map(lambda x, stop=stop: x[:, :, :stop], own)
            parts = [(seen, recent(place[start:stop, None] - place[None, :stop], window))]
            if before is not None:
                columns = jnp.arange(before.k.shape[-2])
                distance = prefix_length + place[start:stop, None] - columns
                parts.append((before, recent(distance, window) & (columns < prefix_length)))
            outputs.append(merged_attention(q[:, :, :, start:stop], parts, scale, softcap))
        return jnp.concatenate(outputs, 3), own

    layered = isinstance(params["layers"], list)
    nothing = [None] * architecture.layers if layered else None
    _, found = hidden_states(architecture, params, adapter, tokens, positions, attend, prefix or nothing)
    return found if layered else jax.tree.map(lambda keys: jnp.moveaxis(keys, 0, 1), found)


def decode(
    architecture: Architecture,
    steps: int,
    filtered: bool,
    placement: Placement | None,
    params: dict[str, Any],
    adapters: LoraParams | None,
    prefix: Caches,
    prompt: Caches,
    sample: Caches,
    rows: DecodeState,
    start: Int32[Array, ""],
    metadata: SamplingMetadata,
) -> tuple[Caches, Int32[Array, "steps A S N"]]:
    """Let the active rows choose up to `steps` tokens each; `sample` is donated.

    Args:
        architecture: the decoder's architecture; static.
        steps: the largest number of tokens for each row; static. The loop ends earlier if no row is active.
        filtered: whether top-k or top-p is used; static.
        placement: divides caches and rows between devices; static; None for one device.
        params: the base's weights, `by_layer` or stacked.
        adapters: a stack [A, ...] of effective adapters, or None for the bare base (then A is 1).
        prefix: for each layer the KV cache [A, K, s, Dh] of the common prefix; an empty list for none.
        prompt: for each layer the KV cache [A, S, K, s, Dh] of the prompts.
        sample: for each layer the KV cache [A, S, K, N, s, Dh] of the samples. It is a ring: step t writes to place t
            modulo s. `steps` divides s.
        rows: the state of the rows.
        start: the place of the first step in the rings, a multiple of `steps`.
        metadata: the sampling parameters and the end tokens.

    Returns:
        The samples' new KV caches, and the chosen tokens, with -1 for a row that was not active, and `NOT_FINITE` for a
        row whose logits were not finite, which ends the row.
    """
    # The keys of this call's steps have a buffer of their own, so that the loop only reads the large rings. They are
    # written to the rings once, after the loop.
    newest = jax.tree.map(lambda x: jnp.zeros_like(x[..., :steps, :]), sample)
    if not isinstance(params["layers"], list):
        adapters = on_all_layers(adapters, architecture.layers)
    single = rows.token.shape[0] == 1
    if single:  # because with an axis of size 1 the loop would copy them at each step
        newest = jax.tree.map(lambda leaf: leaf[0], newest)

    def forward(
        adapter: LoraParams | None,
        prefix: Caches,
        prompt: Caches,
        sample: Caches,
        newest: Caches,
        token: Int32[Array, "S N"],
        read: Int32[Array, "S N"],
        lengths: Int32[Array, " S"],
        done: Int32[Array, ""],
    ) -> tuple[Float32[Array, "S N V"], Caches]:
        """Return the next logits of one adapter's rows, and `newest` with the keys of this step."""
        place = read + lengths[:, None] + rows.prefix

        def attend(
            caches: tuple[KVCache | None, KVCache, KVCache, KVCache],
            q: Float[Array, "S K G N Dh"],
            k: Float[Array, "S K N Dh"],
            v: Float[Array, "S K N Dh"],
            window: Window,
            scale: float,
            softcap: float | None,
        ) -> tuple[Float[Array, "S K G N Dh"], KVCache]:
            prefix, prompt, sample, newest = caches

            def write(
                keys: Shaped[Array, "S K N steps Dh"], new: Float[Array, "S K N Dh"]
            ) -> Shaped[Array, "S K N steps Dh"]:
                return lax.dynamic_update_slice_in_dim(keys, to_bits(new)[..., None, :], done, 3)

            own = KVCache(write(newest.k, k), write(newest.v, v))
            parts = [(own, recent(done - jnp.arange(steps), window))]
            seen = seen_in_ring(read, done, start, sample.k.shape[-2], window)
            parts.append((sample, seen[:, None, None]))
            seen = seen_in_prompt(lengths, read, prompt.k.shape[-2], window)
            parts.append((prompt, seen[:, None, None]))
            if prefix is not None:
                seen = seen_in_prefix(rows.prefix, place, prefix.k.shape[-2], window)
                parts.append((prefix, seen[:, None, None]))
            return merged_attention(q, parts, scale, softcap), own

        if isinstance(params["layers"], list):
            head, before = params["head"], prefix or [None] * architecture.layers
            caches: Any = list(zip(before, prompt, sample, newest, strict=True))  # type: ignore[arg-type]
        else:
            head, caches = head_kernel(params, architecture), (prefix or None, prompt, sample, newest)
        hidden, written = hidden_states(architecture, params, adapter, token, place, attend, caches)
        logits = transposed_product(hidden, head)
        if architecture.logit_softcap:
            logits = architecture.logit_softcap * jnp.tanh(logits / architecture.logit_softcap)
        return logits, written

    def step(carry: Carry) -> Carry:
        done, newest, token, read, active, chosen = carry
        arguments = (adapters, prefix, prompt, sample, newest, token, read, rows.prompt)
        if single:
            lead: tuple[Any, Any, Any, Any] = (adapters, prefix, prompt, sample)
            a, b, c, d = jax.tree.map(lambda leaf: leaf[0], lead)
            logits, newest = forward(a, b, c, d, newest, token[0], read[0], rows.prompt[0], done)
            logits = logits[None]
        else:
            forward_all = jax.vmap(forward, in_axes=(0,) * len(arguments) + (None,))
            logits, newest = forward_all(*arguments, done)  # type: ignore[arg-type]
        logits = constrained(placement, logits, "adapters", "slots")
        token = _draw_tokens(logits, rows.key, read, metadata, filtered)
        sound = jnp.isfinite(logits.sum(-1))  # the sum is NaN or infinite if any logit is
        chosen = chosen.at[done].set(jnp.where(active, jnp.where(sound, token, NOT_FINITE), -1))
        read = read + 1
        active = active & sound & (read < rows.limit) & (token[..., None] != metadata.ends).all(-1)
        return done + 1, newest, token, read, active, chosen

    def going(carry: Carry) -> Bool[Array, ""]:
        return (carry[0] < steps) & carry[4].any()

    chosen = jnp.full((steps, *rows.token.shape), -1, jnp.int32)
    carry = (jnp.int32(0), newest, rows.token, rows.read, rows.active, chosen)
    _, newest, _, _, _, chosen = lax.while_loop(going, step, carry)  # type: ignore[arg-type]
    if single:
        newest = jax.tree.map(lambda leaf: leaf[None], newest)
    sample = jax.tree.map(
        lambda keys, new: lax.dynamic_update_slice_in_dim(keys, new, start, keys.ndim - 2), sample, newest
    )
    return constrained(placement, sample, *CACHE_AXES), constrained(placement, chosen)


def _draw_tokens(
    logits: Float32[Array, "A S N V"],
    key: UInt32[Array | np.ndarray, "A S N 2"],
    read: Int32[Array, "A S N"],
    metadata: SamplingMetadata,
    filtered: bool,
) -> Int32[Array, "A S N"]:
    """Return each row's next token. The sample's key and the number of tokens read give the random number."""
    flat = logits.reshape(-1, logits.shape[-1])
    keys = jax.vmap(jax.random.fold_in)(jax.random.wrap_key_data(jnp.reshape(key, (-1, 2))), read.reshape(-1))
    uniform = jax.vmap(jax.random.uniform)(keys)
    temperature, top_k, top_p = map(jnp.asarray, (metadata.temperature, metadata.top_k, metadata.top_p))
    token = sample_tokens(flat, uniform, temperature, top_k, top_p, filtered=filtered)
    return token.reshape(read.shape)


prefill_program = jax.jit(prefill, static_argnums=0)
decode_program = jax.jit(decode, static_argnums=(0, 1, 2, 3), donate_argnums=8)
