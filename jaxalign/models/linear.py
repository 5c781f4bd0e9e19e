"""Matrix products with a frozen weight. This file alone knows how such a weight is stored.

Every product multiplies in the compute type (bfloat16 by default) and accumulates in float32, forwards and backwards.
JAX's own rule for the backward pass would multiply a float32 cotangent by a bfloat16 weight. That is slower on every
processor, and not more accurate, because the result is stored in bfloat16 anyway.
"""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float32, Shaped

from jaxalign.models.lora import lora_product
from jaxalign.models.precision import dot, from_bits


@jax.custom_vjp
def frozen_product(x: Float[Array, "*rows in"], kernel: Float[Array, "in out"]) -> Float[Array, "*rows out"]:
    """Return x [..., in] times a frozen kernel [in, out], in the type of x; the kernel has no gradient."""
    return dot(x, kernel, ((x.ndim - 1,), (0,))).astype(x.dtype)


def _forward(
    x: Float[Array, "*rows in"], kernel: Float[Array, "in out"]
) -> tuple[Float[Array, "*rows out"], Float[Array, "in out"]]:
    return frozen_product(x, kernel), kernel


def _backward(
    kernel: Float[Array, "in out"], gradient: Float[Array, "*rows out"]
) -> tuple[Float[Array, "*rows in"], None]:
    return dot(gradient, kernel, ((gradient.ndim - 1,), (1,))).astype(gradient.dtype), None


frozen_product.defvjp(_forward, _backward)


TRANSPOSED = "transposed"
"""The name of a kernel that is stored as [out, in] and in its own type, not as bits, for products of few rows."""


def transposed_product(x: Float[Array, "*rows in"], kernel: Float[Array, "out in"]) -> Float32[Array, "*rows out"]:
    """Return x [..., in] times a kernel that is stored as [out, in], in float32.

    With few rows, reading the kernel takes most of the time, and a CPU reads it fastest along the axis of the sum.
    """
    # The kernel stands on the left, because XLA would transpose it on the right.
    return jnp.moveaxis(dot(kernel, x, ((1,), (x.ndim - 1,))), 0, -1)


def to_stored(values: Shaped[np.ndarray, "*shape"]) -> Shaped[np.ndarray, "*shape"]:
    """Return a weight as the parameters of a base hold it: bfloat16 as uint16 of the same bits, any other as it is.

    Weights of type bfloat16 work too, but on a CPU every program would begin by copying them (`precision.to_bits`).
    """
    return values.view(np.uint16) if values.dtype == jnp.bfloat16 else values


def compute_type(params: Any) -> np.dtype:
    """Return the type of a base's weights: bfloat16 (which is stored as uint16) or float32."""
    dtype = np.dtype(params["embedding"]["kernel"].dtype)
    return np.dtype(jnp.bfloat16) if dtype == np.uint16 else dtype


class Projection(nn.Module):
    """y = x W + (x a) b: a frozen kernel W, and a low-rank adapter (a, b) if the collection `lora` has one.

    b already contains the adapter's scale, alpha / rank: see `lora.effective`.
    """

    features: int
    bias: bool = False

    @nn.compact
    def __call__(
        self, x: Float[Array, "B T in"], dropout: Callable[[Array], Array] | None = None
    ) -> Float[Array, "B T {self.features}"]:
        """Map x [B, T, in] to [B, T, features]; `dropout` is applied to the adapter's input alone."""
        if self.has_variable("params", TRANSPOSED):
            y = transposed_product(x, self.get_variable("params", TRANSPOSED)).astype(x.dtype)
        else:
            shape = (x.shape[-1], self.features)
            kernel = from_bits(self.param("kernel", nn.initializers.lecun_normal(), shape, x.dtype))
            y = frozen_product(x, kernel)
        if self.bias:
            y = y + from_bits(self.param("bias", nn.initializers.zeros, (self.features,), x.dtype))
        if self.has_variable("lora", "a"):
            a, b = self.get_variable("lora", "a"), self.get_variable("lora", "b")
            y = y + lora_product(x if dropout is None else dropout(x), a, b)
        return y
