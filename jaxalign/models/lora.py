"""Low-rank adapters (LoRA; Hu et al., 2021, arXiv 2106.09685): each is a pytree of its own, apart from the base."""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float32, Key

from jaxalign.errors import UserError
from jaxalign.models.architecture import PROJECTIONS, Architecture, projection_shape
from jaxalign.models.precision import Number, dot, name_bits
from jaxalign.parallel.processor import on_cpu

LoraParams = dict[str, Any]
"""{"layers": {projection: {"a": [l, in, r], "b": [l, r, out]}}}, float32: the Linen collection `lora`.

It belongs to the last l layers of the model, or to all of them. The layers before have no adapter."""


NO_ADAPTER: LoraParams = {"layers": {}}
"""The adapter of no layer, with which a program reads the bare base."""


def init_adapter(
    key: Key[Array, ""], architecture: Architecture, rank: int, targets: Sequence[str], layers: int | None = None
) -> LoraParams:
    """Return a new adapter of the projections `targets`, float32, which does not change the model yet.

    It belongs to the last `layers` layers; None means all. a is uniform between -1/sqrt(in) and 1/sqrt(in), as in PEFT,
    and b is zero. What is drawn for a projection does not depend on which other projections have an adapter.

    Raises:
        UserError: the rank is above the model's width, where it adds nothing but its size.
    """
    if rank > architecture.width:
        raise UserError(
            f"a LoRA rank of {rank} is above the model's width: give a rank of at most {architecture.width}"
        )
    count = architecture.layers if layers is None else layers
    found = {}
    for name in targets:
        width, features = projection_shape(architecture, name)
        bound = width**-0.5
        shape = (count, width, rank)
        a = jax.random.uniform(jax.random.fold_in(key, PROJECTIONS.index(name)), shape, jnp.float32, -bound, bound)
        found[name] = {"a": a, "b": jnp.zeros((count, rank, features), jnp.float32)}
    return {"layers": found}


def adapted_layers(layers: Mapping[str, Any]) -> int:
    """Return how many layers have an adapter, given `LoraParams["layers"]` of one adapter; 0 if it is empty."""
    leaves = jax.tree.leaves(layers)
    return len(leaves[0]) if leaves else 0


def on_all_layers(adapters: LoraParams | None, layers: int) -> LoraParams | None:
    """Return a stack [A, l, ...] of adapters with zeros for the layers that have none: [A, layers, ...]."""
    return jax.tree.map(lambda leaf: jnp.pad(leaf, ((0, 0), (layers - leaf.shape[1], 0), (0, 0), (0, 0))), adapters)


def effective(adapter: LoraParams, scale: Number) -> LoraParams:
    """Return the adapter as the model applies it, with `scale` (alpha / rank) multiplied into every b."""
    return {"layers": {name: {"a": p["a"], "b": p["b"] * scale} for name, p in adapter["layers"].items()}}


def adapter_hash(adapter: LoraParams, scale: float | int | None = None) -> str:
    """Return 16 hexadecimal digits of the SHA-256 of an adapter's weights, and of its scale if one is given."""
    digest = hashlib.sha256(b"" if scale is None else repr(float(scale)).encode())
    for leaf in jax.tree.leaves(adapter):
        digest.update(np.asarray(leaf).tobytes())
    return digest.hexdigest()[:16]


def stack_lora(adapters: Sequence[LoraParams | None]) -> LoraParams | None:
    """Return effective adapters of one shape stacked to [A, ...]. None stands for the bare base, and becomes zeros.

    Where all are None, the result is None.
    """
    some = next((adapter for adapter in adapters if adapter is not None), None)
    if some is None:
        return None
    zeros = jax.tree.map(jnp.zeros_like, some)
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *(zeros if one is None else one for one in adapters))


INNER = "low_rank"
"""The name under which the rematerialisation policy knows x a, which is thin. It is saved on a CPU alone."""


def low_rank_product(
    x: Float[Array, "*rows in"], a: Float32[Array, "in r"], b: Float32[Array, "r out"]
) -> tuple[Float32[Array, "*rows out"], Float[Array, "r rows"]]:
    """Return (x a) b [..., out] in float32, and x a for `low_rank_gradients`: x [..., in], a [in, r], b [r, out]."""
    inner = dot(x, a.astype(x.dtype), ((x.ndim - 1,), (0,))).astype(x.dtype)
    kept = inner.reshape(-1, inner.shape[-1]).T
    # XLA's CPU backend converts both operands of a product that sums over their first axes, and undoes a transposition
    # that it sees. It does not see the transposition of a saved array.
    if on_cpu():
        kept = name_bits(kept, INNER)
    return dot(inner, b.astype(x.dtype), ((x.ndim - 1,), (0,))), kept


def low_rank_gradients(
    x: Float[Array, "*rows in"],
    a: Float32[Array, "in r"],
    b: Float32[Array, "r out"],
    inner: Float[Array, "r rows"],
    gradient: Float[Array, "*rows out"],
) -> tuple[Float32[Array, "*rows in"], Float32[Array, "in r"], Float32[Array, "r out"]]:
    """Return the gradients of x, a and b in float32, given that of (x a) b in the type of x, and `inner` as kept."""
    last = x.ndim - 1
    dinner = dot(gradient, b.astype(x.dtype), ((last,), (1,))).astype(x.dtype)
    dx = dot(dinner, a.astype(x.dtype), ((last,), (1,)))
    flat_x, flat_gradient, flat_dinner = (array.reshape(-1, array.shape[-1]) for array in (x, gradient, dinner))
    # The thin operand on the left is up to five times faster on CPUs. The barrier keeps XLA from swapping them.
    da = jax.lax.optimization_barrier(dot(flat_dinner, flat_x, ((0,), (0,)))).T
    return dx, da, dot(inner, flat_gradient, ((1,), (0,)))


def apply_dropout(key: Key[Array, ""], rate: Float32[Array, ""], x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """Return x with a share `rate` of its elements set to zero, and the others scaled so that the mean stays.

    Eight random bits decide about an element, so the rate is rounded to a multiple of 1/256 (255/256 at most). More
    bits would cost more time than the adapter's products, because rematerialisation draws them twice.
    """
    size = x.size
    words = jax.random.bits(key, ((size + 3) // 4,), jnp.uint32)
    drawn = jax.lax.bitcast_convert_type(words, jnp.uint8).reshape(-1)[:size].reshape(x.shape)
    threshold = jnp.minimum(jnp.round(rate * 256), 255).astype(jnp.int32)
    keep = drawn.astype(jnp.int32) >= threshold
    return jnp.where(keep, x * (256.0 / (256 - threshold)).astype(x.dtype), jnp.zeros((), x.dtype))
