"""The one rule for matrix products: multiply in the compute type, accumulate in float32."""

from collections.abc import Sequence
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array, Float, Float32, Int, Shaped

Number = Float[Array | np.ndarray | np.floating | float, ""]
"""One number, traced or not."""


def dot(
    left: Float[Array, "..."],
    right: Float[Array, "..."],
    contract: tuple[Sequence[int], Sequence[int]],
    batch: tuple[Sequence[int], Sequence[int]] = ((), ()),
) -> Float32[Array, "..."]:
    """Contract two arrays of one type over the `contract` axes; the result is float32, batch axes first."""
    # float32 means float32: without this, TPUs and newer GPUs would round the operands.
    precision = lax.Precision.HIGHEST if left.dtype == jnp.float32 else None
    return lax.dot_general(left, right, (contract, batch), precision, jnp.float32)


def to_bits(x: Shaped[Array, "*shape"]) -> Shaped[Array, "*shape"]:
    """Return bfloat16 as uint16 of the same bits, anything else as it is.

    XLA's CPU backend slices, gathers and stacks bfloat16 as float32, and converts the whole array first: on a 135M
    model that took a third of a training step. It leaves integers alone, and on other backends this costs nothing.
    """
    return lax.bitcast_convert_type(x, jnp.uint16) if x.dtype == jnp.bfloat16 else x


def from_bits(x: Shaped[Array, "*shape"]) -> Shaped[Array, "*shape"]:
    """Undo `to_bits`."""
    return lax.bitcast_convert_type(x, jnp.bfloat16) if x.dtype == jnp.uint16 else x


def take_rows(table: Shaped[Array, "V D"], index: Int[Array | np.ndarray, "*index"]) -> Float[Array, "*index D"]:
    """Return rows of a table [V, D] at any index."""
    return from_bits(jnp.take(to_bits(table), index, axis=0))


@partial(jax.custom_vjp, nondiff_argnums=(1,))
def saved(x: Float[Array, "*shape"], name: str) -> Float[Array, "*shape"]:
    """Return x, named for the rematerialisation policy, and kept as bits where it is kept (`to_bits`)."""
    return name_bits(x, name)


def name_bits(x: Float[Array, "*shape"], name: str) -> Float[Array, "*shape"]:
    """Do what `saved` does, inside a rule that is not differentiated itself."""
    return from_bits(checkpoint_name(to_bits(x), name))


def _saved_forward(x: Float[Array, "*shape"], name: str) -> tuple[Float[Array, "*shape"], None]:
    return name_bits(x, name), None


def _saved_backward(name: str, _: None, gradient: Float[Array, "*shape"]) -> tuple[Float[Array, "*shape"]]:
    return (gradient,)


saved.defvjp(_saved_forward, _saved_backward)
