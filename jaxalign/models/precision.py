"""The one rule for matrix products: multiply in the compute type, accumulate in float32."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax import lax


def dot(
    left: jax.Array,
    right: jax.Array,
    contract: tuple[Sequence[int], Sequence[int]],
    batch: tuple[Sequence[int], Sequence[int]] = ((), ()),
) -> jax.Array:
    """Contract two arrays of one type over the `contract` axes; the result is float32, batch axes first."""
    # float32 means float32: without this, TPUs and newer GPUs would round the operands.
    precision = lax.Precision.HIGHEST if left.dtype == jnp.float32 else None
    return lax.dot_general(left, right, (contract, batch), precision, jnp.float32)
