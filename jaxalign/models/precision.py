"""The rule for all matrix products: multiply in the compute type, accumulate in float32."""

from collections.abc import Sequence
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.ad_checkpoint import checkpoint_name
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Float32, Int, Shaped

from jaxalign.parallel.processor import on_cpu

Number = Float[Array | np.ndarray | np.floating | float, ""]
"""One number: a Python or NumPy number, an array without axes, or a tracer."""


def dot(
    left: Float[Array, "..."],
    right: Float[Array, "..."],
    contract: tuple[Sequence[int], Sequence[int]],
    batch: tuple[Sequence[int], Sequence[int]] = ((), ()),
) -> Float32[Array, "..."]:
    """Return the product of two arrays of one type, in float32.

    `contract` and `batch` are axes of (left, right), as in `jax.lax.dot_general`: the result has the batch axes first,
    then the other axes of left, then those of right.
    """
    # Without this, TPUs and newer GPUs round float32 operands.
    precision = lax.Precision.HIGHEST if left.dtype == jnp.float32 else None
    return lax.dot_general(left, right, (contract, batch), precision, jnp.float32)


def sum_type(dtype: DTypeLike) -> np.dtype:
    """Return the type in which the terms of a sum wait for each other before the sum is rounded to `dtype`.

    That is float32 on a CPU: its loops are slow to round to bfloat16, and slower still to add what was rounded. Others
    round each term, because they write and read only half as much then.
    """
    return np.dtype(np.float32 if on_cpu() else dtype)


def rounded_sum(dtype: DTypeLike, *terms: Float32[Array, "*shape"]) -> Float[Array, "*shape"]:
    """Return the sum of float32 terms in a type (see `sum_type`)."""
    first, *others = (term.astype(sum_type(dtype)) for term in terms)
    return sum(others, start=first).astype(dtype)


def to_bits(x: Shaped[Array, "*shape"]) -> Shaped[Array, "*shape"]:
    """Return a bfloat16 array as uint16 of the same bits (`bits_type`), and any other array as it is.

    To slice, gather or stack bfloat16, XLA's CPU backend first converts the whole array to float32: with a 135M model
    that took a third of a training step. It does not convert integers.
    """
    return x if bits_type(x.dtype) == x.dtype else lax.bitcast_convert_type(x, jnp.uint16)


def bits_type(dtype: DTypeLike) -> np.dtype:
    """Return the type that a type is stored as: uint16 for bfloat16 on a CPU, and any other type itself.

    GPUs and TPUs gain nothing from it, and there the conversion of a large table, such as the head, would copy it.
    """
    return np.dtype(np.uint16 if dtype == jnp.bfloat16 and on_cpu() else dtype)


def from_bits(x: Shaped[Array, "*shape"]) -> Shaped[Array, "*shape"]:
    """Return a uint16 array as bfloat16 of the same bits, and any other array as it is: the inverse of `to_bits`."""
    return lax.bitcast_convert_type(x, jnp.bfloat16) if x.dtype == jnp.uint16 else x


def take_rows(table: Shaped[Array, "V D"], index: Int[Array | np.ndarray, "*index"]) -> Float[Array, "*index D"]:
    """Return the rows of a table [V, D] that an array of indices names: [..., D]."""
    return from_bits(jnp.take(to_bits(table), index, axis=0))


@partial(jax.custom_vjp, nondiff_argnums=(1,))
def saved(x: Float[Array, "*shape"], name: str) -> Float[Array, "*shape"]:
    """Return x under a name that the rematerialisation policy knows; what the policy saves is its bits (`to_bits`)."""
    return name_bits(x, name)


def name_bits(x: Float[Array, "*shape"], name: str) -> Float[Array, "*shape"]:
    """Give x a name as `saved` does, without a gradient rule of its own; for use inside hand-written gradient rules."""
    return from_bits(checkpoint_name(to_bits(x), name))


def _saved_forward(x: Float[Array, "*shape"], name: str) -> tuple[Float[Array, "*shape"], None]:
    return name_bits(x, name), None


def _saved_backward(name: str, _: None, gradient: Float[Array, "*shape"]) -> tuple[Float[Array, "*shape"]]:
    return (gradient,)


saved.defvjp(_saved_forward, _saved_backward)
