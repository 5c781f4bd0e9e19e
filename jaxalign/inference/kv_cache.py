"""KV caches: the keys and values of the tokens that the model has read.

There are three kinds of cache: one for the prefix that all prompts share, one for each prompt, one for each sample.
Attention merges them, so nothing is copied for a row. A sample's cache is a ring: at each step, all rows write to the
same place, whatever their lengths, and the age of a key gives its place in the sample.

A adapters, S slots of an adapter (each holds a prompt), N rows of a slot (each holds a sample of the prompt), P prompts
of a prefill, K key/value heads, Dh width of a head, s places of a KV cache.
"""

import dataclasses
from functools import partial
from typing import no_type_check

import flax.struct
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Int32, Shaped

from jaxalign.models.architecture import Architecture


@no_type_check  # while JAX traces, it fills the fields with other things than arrays
@flax.struct.dataclass
class KVCache:
    """The keys and values of one layer, in the bits of the compute type (see `precision.to_bits`)."""

    k: Shaped[Array, "... s Dh"]
    v: Shaped[Array, "... s Dh"]


@dataclasses.dataclass
class CallCaches:
    """All KV caches of one call of the sampler. Each field is a list with one cache for each layer."""

    prefix: list[KVCache]
    """[A, K, s, Dh], of the prefix that all prompts share; an empty list if there is none."""
    prompt: list[KVCache]
    """[A, S, K, s, Dh], of each slot's prompt."""
    sample: list[KVCache]
    """[A, S, K, N, s, Dh], of each row's sample: a ring."""
    step: int = 0
    """The next decode step writes to the place `step % ring` of the rings."""

    @property
    def prompt_places(self) -> int:
        """The number of places for the keys of a slot's prompt."""
        return self.prompt[0].k.shape[-2]

    @property
    def ring(self) -> int:
        """The number of places for the keys of a row's sample."""
        return self.sample[0].k.shape[-2]


def empty_caches(architecture: Architecture, dtype: DTypeLike, shape: tuple[int, ...], length: int) -> list[KVCache]:
    """Return for each layer a KV cache [*shape, length, Dh] of zeros; `dtype` is the compute type."""
    size = (*shape, length, architecture.head_dim)
    zeros = partial(jnp.zeros, size, jnp.uint16 if dtype == jnp.bfloat16 else dtype)
    return [KVCache(zeros(), zeros()) for _ in range(architecture.layers)]


def place_prompts(
    prompt: list[KVCache],
    found: list[KVCache],
    which: Int32[Array, " M"],
    number: Int32[Array, ""],
    slots: Int32[Array, " M"],
) -> list[KVCache]:
    """Return the prompts' caches [A, S, K, s, Dh] with new prompts in some slots; `prompt` is donated.

    Args:
        prompt: the caches so far.
        found: the caches [P, K, T, Dh] of the new prompts.
        which: for each of M places the index of the new prompt that goes there. Several places may take the same one.
        number: the index of the adapter, the same for all places.
        slots: the slot of each place.
    """

    def put(cache: Shaped[Array, "A S K s Dh"], new: Shaped[Array, "P K T Dh"]) -> Shaped[Array, "A S K s Dh"]:
        return cache.at[number, slots, :, : new.shape[2]].set(new[which])

    return jax.tree.map(put, prompt, found)


def grow_prompts(more: int, prompt: list[KVCache]) -> list[KVCache]:
    """Return the prompts' caches [A, S, K, s, Dh] with `more` (static) empty places added after those of each slot."""
    return jax.tree.map(lambda keys: jnp.pad(keys, [*[(0, 0)] * (keys.ndim - 2), (0, more), (0, 0)]), prompt)


def grow_ring(sample: list[KVCache], step: Int32[Array, ""]) -> list[KVCache]:
    """Return the samples' rings with twice the places.

    `step` is the next place in the old ring. In the new ring, the next step writes to the first new place.
    """

    def double(ring: Shaped[Array, "A S K N s Dh"]) -> Shaped[Array, "A S K N 2*s Dh"]:
        ordered = jnp.roll(ring, -step, axis=-2)  # oldest first
        return jnp.concatenate([ordered, jnp.zeros_like(ordered)], -2)

    return jax.tree.map(double, sample)


place_prompts_program = jax.jit(place_prompts, donate_argnums=0)
grow_ring_program = jax.jit(grow_ring)
grow_prompts_program = jax.jit(grow_prompts, static_argnums=0)
