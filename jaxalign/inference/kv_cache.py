"""KV caches: the keys and values of the tokens that the model has read.

There are three kinds of cache: one for the prefix that all prompts share, one for each prompt, one for each sample.
Attention merges them, so nothing is copied for a row. A sample's cache is a ring: at each step, all rows write to the
same place, whatever their lengths, and the age of a key gives its place in the sample.

With weights layer by layer, `Caches` is a list with a cache for each layer. With stacked weights it is one cache, which
has an axis of L layers after the first axis, because then a loop runs over the layers.

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
from jaxalign.models.precision import bits_type
from jaxalign.parallel.rules import Placement, constrained


@no_type_check  # while JAX traces, it fills the fields with other things than arrays
@flax.struct.dataclass
class KVCache:
    """The keys and values of one layer, in the bits of the compute type (see `precision.to_bits`)."""

    k: Shaped[Array, "... s Dh"]
    v: Shaped[Array, "... s Dh"]


Caches = list[KVCache] | KVCache
"""The KV caches of all layers, as a list or stacked [A, L, ...]; an empty list if there are none."""


@dataclasses.dataclass
class CallCaches:
    """All KV caches of one call of the sampler."""

    prefix: Caches
    """[A, K, s, Dh], of the prefix that all prompts share; an empty list if there is none."""
    prompt: Caches
    """[A, S, K, s, Dh], of each slot's prompt."""
    sample: Caches
    """[A, S, K, N, s, Dh], of each row's sample: a ring."""
    step: int = 0
    """The next decode step writes to the place `step % ring` of the rings."""

    @property
    def prompt_places(self) -> int:
        """The number of places for the keys of a slot's prompt."""
        return jax.tree.leaves(self.prompt)[0].shape[-2]

    @property
    def ring(self) -> int:
        """The number of places for the keys of a row's sample."""
        return jax.tree.leaves(self.sample)[0].shape[-2]


def empty_caches(
    architecture: Architecture,
    dtype: DTypeLike,
    shape: tuple[int, ...],
    length: int,
    placement: Placement | None = None,
    *,
    stacked: bool = False,
) -> Caches:
    """Return for each layer a KV cache [*shape, length, Dh] of zeros; `dtype` is the compute type.

    With a placement they are `stacked` in any case, and divided by `CACHE_AXES`.
    """
    size = (*shape, length, architecture.head_dim)
    zeros = partial(jnp.zeros, dtype=bits_type(dtype))
    if placement is None and not stacked:
        return [KVCache(zeros(size), zeros(size)) for _ in range(architecture.layers)]
    size = (size[0], architecture.layers, *size[1:])
    sharding = None if placement is None else placement.sharding(*CACHE_AXES)
    return KVCache(zeros(size, device=sharding), zeros(size, device=sharding))


CACHE_AXES = ("adapters", None, "slots", "heads")
"""The logical axes of the stacked caches of prompts and samples, [A, L, S, K, ...]."""


def place_prompts(
    placement: Placement | None,
    prompt: Caches,
    found: Caches,
    which: Int32[Array, " M"],
    number: Int32[Array, ""],
    slots: Int32[Array, " M"],
) -> Caches:
    """Return the prompts' caches [A, S, K, s, Dh] with new prompts in some slots; `prompt` is donated.

    Args:
        placement: divides stacked caches; static; None for one device.
        prompt: the caches so far.
        found: the caches [P, K, T, Dh] of the new prompts.
        which: for each of M places the index of the new prompt that goes there. Several places may take the same one.
        number: the index of the adapter, the same for all places.
        slots: the slot of each place.
    """

    def put(cache: Shaped[Array, "A S K s Dh"], new: Shaped[Array, "P K T Dh"]) -> Shaped[Array, "A S K s Dh"]:
        return cache.at[number, slots, :, : new.shape[2]].set(new[which])

    each = put if isinstance(prompt, list) else jax.vmap(put, 1, 1)
    return constrained(placement, jax.tree.map(each, prompt, found), *CACHE_AXES)


def grow_prompts(placement: Placement | None, more: int, prompt: Caches) -> Caches:
    """Return the prompts' caches [A, S, K, s, Dh] with `more` empty places added after those of each slot.

    `placement` and `more` are static.
    """
    longer = jax.tree.map(lambda keys: jnp.pad(keys, [*[(0, 0)] * (keys.ndim - 2), (0, more), (0, 0)]), prompt)
    return constrained(placement, longer, *CACHE_AXES)


def grow_ring(placement: Placement | None, sample: Caches, step: Int32[Array, ""]) -> Caches:
    """Return the samples' rings with twice the places; `placement` is static.

    `step` is the next place in the old ring. In the new ring, the next step writes to the first new place.
    """

    def double(ring: Shaped[Array, "A *S K N s Dh"]) -> Shaped[Array, "A *S K N 2*s Dh"]:
        ordered = jnp.roll(ring, -step, axis=-2)  # oldest first
        return jnp.concatenate([ordered, jnp.zeros_like(ordered)], -2)

    return constrained(placement, jax.tree.map(double, sample), *CACHE_AXES)


place_prompts_program = jax.jit(place_prompts, static_argnums=0, donate_argnums=1)
grow_ring_program = jax.jit(grow_ring, static_argnums=0)
grow_prompts_program = jax.jit(grow_prompts, static_argnums=(0, 1))
