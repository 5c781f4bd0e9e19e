"""Decoding: the model layer by layer, with the keys and values of what was read before.

Three kinds of keys stay apart and are merged in attention: those of the prefix that all prompts of a call share, those
of a prompt, and those of a sample. None is ever copied for a row. A sample's keys stand in a ring: all rows write to
the same place at a step, whatever their lengths, and a key's age says where it stands.
"""

import dataclasses
from functools import partial
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp

from jaxalign.models.architecture import Architecture


@flax.struct.dataclass
class KVCache:
    """Keys and values of one layer, in the compute type's bits (see `precision.to_bits`).

    [K, s, Dh] of a shared prefix, [B, K, s, Dh] of prompts, or [B, K, N, s, Dh] of N samples of each prompt.
    """

    k: jax.Array
    v: jax.Array


@dataclasses.dataclass
class CallCaches:
    """All KV caches of one call of the sampler, on the device: a list with one for each layer of each kind.

    prefix  [A, K, s, Dh]: of what all prompts begin with; an empty list where that is not prefilled once
    prompt  [A, S, K, s, Dh]: of each slot's prompt
    sample  [A, S, K, N, s, Dh]: of each row's sample, a ring
    step    the steps that were decoded so far: the next one writes to the place `step % ring` of the rings
    """

    prefix: list[KVCache]
    prompt: list[KVCache]
    sample: list[KVCache]
    step: int = 0

    @property
    def prompt_places(self) -> int:
        """Places for the keys of a slot's prompt."""
        return self.prompt[0].k.shape[-2]

    @property
    def ring(self) -> int:
        """Places for the keys of a row's sample."""
        return self.sample[0].k.shape[-2]


def empty_caches(architecture: Architecture, dtype: Any, shape: tuple[int, ...], length: int) -> list[KVCache]:
    """Return zeroed keys [*shape, length, Dh] for each layer."""
    size = (*shape, length, architecture.head_dim)
    zeros = partial(jnp.zeros, size, jnp.uint16 if dtype == jnp.bfloat16 else dtype)
    return [KVCache(zeros(), zeros()) for _ in range(architecture.layers)]


def place_prompts(
    prompt: list[KVCache], found: list[KVCache], which: jax.Array, number: jax.Array, slots: jax.Array
) -> list[KVCache]:
    """Return the slots' keys `prompt` with `found` [P, K, T, Dh], of prompts `which` [M], in `slots` [M] of an adapter.

    Several slots may take the same prompt. Donate `prompt`.
    """

    def put(cache, new):
        return cache.at[number, slots, :, : new.shape[2]].set(new[which])

    return jax.tree.map(put, prompt, found)


def grow_prompts(more: int, prompt: list[KVCache]) -> list[KVCache]:
    """Return the slots' keys `prompt` with so many more places for each. `more`: static."""
    return jax.tree.map(lambda keys: jnp.pad(keys, [*[(0, 0)] * (keys.ndim - 2), (0, more), (0, 0)]), prompt)


def grow_ring(sample: list[KVCache], step: jax.Array) -> list[KVCache]:
    """Return a ring of twice the length, for step = the old length to come next. `step`: what came next in the old."""

    def double(ring):
        ordered = jnp.roll(ring, -step, axis=-2)  # oldest first
        return jnp.concatenate([ordered, jnp.zeros_like(ordered)], -2)

    return jax.tree.map(double, sample)


place_prompts_program = jax.jit(place_prompts, donate_argnums=0)
grow_ring_program = jax.jit(grow_ring)
grow_prompts_program = jax.jit(grow_prompts, static_argnums=0)
