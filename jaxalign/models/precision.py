"""The one rule for matrix products: multiply in the compute type, accumulate in float32."""

from collections.abc import Sequence

from functools import partial

import jax
import jax.numpy as jnp
from jax import lax
from jax.ad_checkpoint import checkpoint_name


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


@partial(jax.custom_vjp, nondiff_argnums=(1,))
def saved(x: jax.Array, name: str) -> jax.Array:
    """Return x, named for the rematerialisation policy, as bits where it is bfloat16.

    XLA's CPU backend keeps a stack of bfloat16 that a scan writes to as float32, and converts all of it before and
    after: on a 135M model that took a third of a training step. It leaves integers alone.
    """
    return name_bits(x, name)


def name_bits(x: jax.Array, name: str) -> jax.Array:
    """Do what `saved` does, inside a rule that is not differentiated itself."""
    if x.dtype != jnp.bfloat16:
        return checkpoint_name(x, name)
    bits = checkpoint_name(lax.bitcast_convert_type(x, jnp.uint16), name)
    return lax.bitcast_convert_type(bits, jnp.bfloat16)


def _saved_forward(x, name):
    return name_bits(x, name), None


def _saved_backward(name, _, gradient):
    return (gradient,)


saved.defvjp(_saved_forward, _saved_backward)
