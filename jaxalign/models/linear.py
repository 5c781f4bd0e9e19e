"""Matrix products with a frozen weight. This file alone knows how such a weight is stored.

Every product multiplies in the compute type (bfloat16 by default) and accumulates in float32, forwards and backwards.
JAX's own rule for the backward pass would multiply a float32 cotangent by a bfloat16 weight. That is slower on every
processor, and not more accurate, because the result is stored in bfloat16 anyway.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float32, Shaped

from jaxalign.models.lora import lora_product
from jaxalign.models.precision import bits_type, dot, from_bits
from jaxalign.parallel.rules import Placement, constrained

Axes = tuple[str | None, str | None]
"""The logical axes (in, out) of a kernel, as `parallel.rules.RULES` names them; None for an axis that stays whole."""


@partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def frozen_product(
    x: Float[Array, "*rows in"],
    kernel: Float[Array, "in out"],
    placement: Placement | None = None,
    axes: Axes = (None, None),
) -> Float[Array, "*rows out"]:
    """Return x [..., in] times a frozen kernel [in, out], in the type of x; the kernel has no gradient.

    With a placement, x [B, ..., in] is divided by its rows. The kernel is gathered over the model's width before each
    product, forwards and backwards, so that the gathered one is never kept. Left to itself, the compiler would rather
    sum the activations of all rows over the devices.
    """
    y = dot(x, _gathered(kernel, placement, axes), ((x.ndim - 1,), (0,))).astype(x.dtype)
    return _by_rows(y, placement, axes[1])


def _gathered(kernel: Float[Array, "in out"], placement: Placement | None, axes: Axes) -> Float[Array, "in out"]:
    return constrained(placement, kernel, *(None if axis == "width" else axis for axis in axes))


def _by_rows(x: Float[Array, "*rows out"], placement: Placement | None, axis: str | None) -> Float[Array, "*rows out"]:
    """Lay activations [B, ..., features] out by their rows, and by their last axis, except over the width."""
    return constrained(placement, x, "rows", *[None] * (x.ndim - 2), None if axis == "width" else axis)


def _forward(
    x: Float[Array, "*rows in"], kernel: Float[Array, "in out"], placement: Placement | None, axes: Axes
) -> tuple[Float[Array, "*rows out"], Float[Array, "in out"]]:
    return frozen_product(x, kernel, placement, axes), kernel


def _backward(
    placement: Placement | None, axes: Axes, kernel: Float[Array, "in out"], gradient: Float[Array, "*rows out"]
) -> tuple[Float[Array, "*rows in"], None]:
    dx = dot(gradient, _gathered(kernel, placement, axes), ((gradient.ndim - 1,), (1,))).astype(gradient.dtype)
    return _by_rows(dx, placement, axes[0]), None


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
    """Return a weight as the parameters of a base hold it: on a CPU bfloat16 as uint16 of the same bits.

    Weights of type bfloat16 work there too, but every program would begin by copying them (`precision.to_bits`).
    """
    return values.view(bits_type(values.dtype))


def compute_type(params: Any) -> np.dtype:
    """Return the type of a base's weights: bfloat16 (which a CPU stores as uint16) or float32."""
    dtype = np.dtype(params["embedding"]["kernel"].dtype)
    return np.dtype(jnp.bfloat16) if dtype == np.uint16 else dtype


class Projection(nn.Module):
    """y = x W + (x a) b: a frozen kernel W, and a low-rank adapter (a, b) if the collection `lora` has one.

    b already contains the adapter's scale, alpha / rank: see `lora.effective`.
    """

    features: int
    bias: bool = False
    placement: Placement | None = None
    axes: Axes = (None, None)

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
            y: Any = frozen_product(x, kernel, self.placement, self.axes)
        if self.bias:
            y = y + from_bits(self.param("bias", nn.initializers.zeros, (self.features,), x.dtype))
        if self.has_variable("lora", "a"):
            a, b = self.get_variable("lora", "a"), self.get_variable("lora", "b")
            y = y + lora_product(x if dropout is None else dropout(x), a, b)
        return _by_rows(y, self.placement, self.axes[1])
