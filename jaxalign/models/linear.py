"""Matrix products with a frozen weight. This file alone knows how such a weight is stored.

Every product multiplies in the compute type (bfloat16 by default) and accumulates in float32, forwards and backwards.
JAX's own rule for the backward pass would multiply a float32 cotangent by a bfloat16 weight. That is slower on every
processor, and not more accurate, because the result is stored in bfloat16 anyway.
"""

from collections.abc import Callable
from functools import partial
from math import gcd
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Float32, Int8, Shaped, UInt8

from jaxalign.errors import UserError
from jaxalign.models.architecture import PROJECTIONS, Architecture, axis_sizes, projection_shape
from jaxalign.models.lora import low_rank_gradients, low_rank_product
from jaxalign.models.precision import bits_type, dot, from_bits, rounded_sum
from jaxalign.parallel.rules import Placement, constrained

Axes = tuple[str | None, str | None]
"""The logical axes (in, out) of a kernel, as `parallel.rules.RULES` names them; None for an axis that stays whole."""

CODES: dict[str, np.dtype] = {"int8": np.dtype(np.int8), "int4": np.dtype(np.uint8)}
"""The storages that keep a kernel as whole numbers and scales, each with the type of the numbers."""

SCALE_GROUP = 64
"""The number of weights, along the axis of the sum, that share a scale in int4."""


class Quantised(NamedTuple):
    """A kernel [in, out] as whole numbers and the scales that they are multiplied by.

    In int8 a scale belongs to one output, and in int4 to one output of one group of `SCALE_GROUP` inputs. A byte of
    int4 has two numbers, each plus 8: of the inputs n (the low four bits) and n + SCALE_GROUP / 2 of its group.
    """

    codes: Int8[Array, "in out"] | UInt8[Array, "groups half out"]
    scale: Float32[Array, "groups out"]


def check_storage(storage: str | None, architecture: Architecture, name: str) -> None:
    """Raise UserError if a projection of the model `name` cannot be kept in a storage."""
    for projection in PROJECTIONS if storage == "int4" else ():
        inner, _ = projection_shape(architecture, projection)
        if inner % SCALE_GROUP:
            raise UserError(
                f"model.storage=int4 needs groups of {SCALE_GROUP} inputs, and {projection} of {name} has {inner}: "
                "take model.storage=int8"
            )


def stored_sizes(storage: str | None, architecture: Architecture) -> dict[str, int]:
    """Return the size of each logical axis as far as a mesh may divide it: groups of int4 stay whole."""
    sizes = axis_sizes(architecture)
    if storage != "int4":
        return sizes
    groups = {axis: sizes[axis] // SCALE_GROUP for axis in ("width", "ff")}
    heads = gcd(sizes["heads"], projection_shape(architecture, "o_proj")[0] // SCALE_GROUP)
    return {**sizes, **groups, "heads": heads}


def quantised_shapes(storage: str, shape: tuple[int, int]) -> tuple[tuple[int, ...], tuple[int, int]]:
    """Return the shapes of codes and scales of a kernel of this shape (in, out)."""
    inner, outer = shape
    if storage == "int8":
        return (inner, outer), (1, outer)
    return (inner // SCALE_GROUP, SCALE_GROUP // 2, outer), (inner // SCALE_GROUP, outer)


def quantised_axes(storage: str, axes: Axes) -> tuple[tuple[str | None, ...], Axes]:
    """Return the logical axes of codes and scales of a kernel with these axes (in, out)."""
    inner, outer = axes
    return ((inner, outer), (None, outer)) if storage == "int8" else ((inner, None, outer), (inner, outer))


def scales_of(kernel: Float32[np.ndarray, "in out"], storage: str) -> Float32[np.ndarray, "groups out"]:
    """Return the scales of a kernel: the largest weight of each group becomes 127 or -127 in int8, and -8 in int4."""
    groups = kernel.reshape(1 if storage == "int8" else len(kernel) // SCALE_GROUP, -1, kernel.shape[1])
    high, low = groups.max(1), groups.min(1)
    if storage == "int8":
        return np.maximum(high, -low) / np.float32(127)
    return np.where(high > -low, high, low) / np.float32(-8)


def codes_of(
    kernel: Float32[np.ndarray, "in out"], scale: Float32[np.ndarray, "groups out"], storage: str
) -> Int8[np.ndarray, "in out"] | UInt8[np.ndarray, "groups half out"]:
    """Return the whole numbers nearest to a kernel in the unit of its scales (`scales_of`), as they are stored.

    The kernel may be a part of the inputs of `scales_of`: in int8 any part, in int4 whole groups with their scales.
    """
    groups = kernel.reshape(len(scale), -1, kernel.shape[1])
    numbers = np.rint(groups / np.where(scale == 0, np.float32(1), scale)[:, None])
    if storage == "int8":
        return numbers.astype(np.int8).reshape(kernel.shape)
    numbers = (np.minimum(numbers, 7) + 8).astype(np.uint8)
    return numbers[:, : SCALE_GROUP // 2] | numbers[:, SCALE_GROUP // 2 :] << 4


def dequantised(kernel: Quantised, dtype: DTypeLike) -> Float[Array, "in out"]:
    """Return a kernel's weights, rounded to a type."""
    codes, (groups, outer) = kernel.codes, kernel.scale.shape
    if codes.dtype == np.uint8:
        # Shifts by a constant would be as many operations, but XLA's CPU backend makes a slow loop of joining them.
        shifts = jnp.arange(2, dtype=jnp.uint8)[:, None, None] * 4
        numbers = ((codes[:, None] >> shifts) & 15).astype(jnp.float32) - 8
    else:
        numbers = codes.astype(jnp.float32)
    values = numbers.reshape(groups, -1, outer) * kernel.scale[:, None]
    return values.astype(dtype).reshape(-1, outer)


def is_quantised(params: Any) -> bool:
    """Return whether the projections of a base are kept as whole numbers."""
    return isinstance(params["layers"], dict) and any(name in params["layers"]["q_proj"] for name in CODES)


LowRank = tuple[Float32[Array, "in r"], Float32[Array, "r out"]] | None
"""The matrices (a, b) of a projection's adapter, or None. b already contains the scale, alpha / rank."""


@partial(jax.custom_vjp, nondiff_argnums=(4, 5, 6))
def frozen_product(
    x: Float[Array, "*rows in"],
    kernel: Float[Array, "in out"] | Quantised,
    adapter: LowRank = None,
    dropped: Float[Array, "*rows in"] | None = None,
    dtype: DTypeLike | None = None,
    placement: Placement | None = None,
    axes: Axes = (None, None),
) -> Float[Array, "*rows out"]:
    """Return x W + (x a) b for x [..., in], a frozen kernel W [in, out] and an adapter (a, b), in the compute type.

    The compute type is `dtype`, or that of x, which may be float32 to be rounded only here. The kernel has no gradient.
    `dropped` is the adapter's input where that is not x itself. A kernel of another type, or a quantised one, is
    converted before each product, forwards and backwards, so that the converted one is never kept.

    With a placement, x [B, ..., in] is divided by its rows. The kernel is gathered over the model's width before each
    product, forwards and backwards, so that the gathered one is never kept. Left to itself, the compiler would rather
    sum the activations of all rows over the devices.
    """
    return _forward(x, kernel, adapter, dropped, dtype, placement, axes)[0]


def _gathered(
    kernel: Float[Array, "in out"] | Quantised, placement: Placement | None, axes: Axes, dtype: DTypeLike
) -> Float[Array, "in out"]:
    """Return a kernel's weights in a type, gathered over the model's width as they are stored."""
    inner, outer = (None if axis == "width" else axis for axis in axes)
    if isinstance(kernel, Quantised):
        laid = quantised_axes("int8" if kernel.codes.ndim == 2 else "int4", (inner, outer))
        codes, scale = (constrained(placement, x, *axes) for x, axes in zip(kernel, laid, strict=True))
        kernel = dequantised(Quantised(codes, scale), dtype)
    return constrained(placement, kernel, inner, outer).astype(dtype)


def _by_rows(x: Float[Array, "*rows out"], placement: Placement | None, axis: str | None) -> Float[Array, "*rows out"]:
    """Lay activations [B, ..., features] out by their rows, and by their last axis, except over the width."""
    return constrained(placement, x, "rows", *[None] * (x.ndim - 2), None if axis == "width" else axis)


def _forward(
    x: Float[Array, "*rows in"],
    kernel: Float[Array, "in out"] | Quantised,
    adapter: LowRank,
    dropped: Float[Array, "*rows in"] | None,
    dtype: DTypeLike | None,
    placement: Placement | None,
    axes: Axes,
) -> tuple[Float[Array, "*rows out"], tuple[Any, ...]]:
    given, x = x, x.astype(dtype or x.dtype)
    base = dot(x, _gathered(kernel, placement, axes, x.dtype), ((x.ndim - 1,), (0,)))
    terms, inner = [_by_rows(base, placement, axes[1])], None
    if adapter is not None:
        term, inner = low_rank_product(x if dropped is None else dropped.astype(x.dtype), *adapter)
        terms.append(term)
    # An empty part of x as it was given has the type of its gradient.
    return rounded_sum(x.dtype, *terms), (x, kernel, adapter, dropped, inner, given[..., :0])


def _backward(
    dtype: DTypeLike | None,
    placement: Placement | None,
    axes: Axes,
    residuals: tuple[Any, ...],
    gradient: Float[Array, "*rows out"],
) -> tuple[Any, None, Any, Any]:
    x, kernel, adapter, dropped, inner, given = residuals
    weights = _gathered(kernel, placement, axes, gradient.dtype)
    terms = [_by_rows(dot(gradient, weights, ((gradient.ndim - 1,), (1,))), placement, axes[0])]
    dadapter = ddropped = None
    if adapter is not None:
        (a, b), fed = adapter, x if dropped is None else dropped.astype(x.dtype)
        term, da, db = low_rank_gradients(fed, a, b, inner, gradient)
        dadapter = (da, db)
        if dropped is None:
            terms.append(term)
        else:
            ddropped = term.astype(dropped.dtype)
    return rounded_sum(given.dtype, *terms), None, dadapter, ddropped


frozen_product.defvjp(_forward, _backward)


TRANSPOSED = "transposed"
"""The name of a kernel that is stored as [out, in] and in its own type, not as bits, for products of few rows."""


def transposed_product(x: Float[Array, "*rows in"], kernel: Float[Array, "out in"]) -> Float32[Array, "*rows out"]:
    """Return x [..., in] times a kernel that is stored as [out, in], in float32.

    With few rows, reading the kernel takes most of the time, and a CPU reads it fastest along the axis of the sum.
    """
    # The kernel stands on the left, because XLA would transpose it on the right.
    return jnp.moveaxis(dot(kernel.astype(x.dtype), x, ((1,), (x.ndim - 1,))), 0, -1)


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

    b already contains the adapter's scale, alpha / rank: see `lora.effective`. The products are computed in `dtype`,
    or in the type of x.
    """

    features: int
    bias: bool = False
    placement: Placement | None = None
    axes: Axes = (None, None)
    dtype: DTypeLike | None = None

    @nn.compact
    def __call__(
        self, x: Float[Array, "B T in"], dropout: Callable[[Array], Array] | None = None
    ) -> Float[Array, "B T {self.features}"]:
        """Map x [B, T, in] to [B, T, features]; `dropout` is applied to the adapter's input alone."""
        dtype = jnp.dtype(self.dtype or x.dtype)
        adapter = dropped = None
        if self.has_variable("lora", "a"):
            adapter = self.get_variable("lora", "a"), self.get_variable("lora", "b")
            dropped = None if dropout is None else dropout(x)
        if self.has_variable("params", TRANSPOSED):
            x = x.astype(dtype)
            terms = [transposed_product(x, self.get_variable("params", TRANSPOSED))]
            if adapter is not None:
                terms.append(low_rank_product(x if dropped is None else dropped.astype(dtype), *adapter)[0])
            y: Any = rounded_sum(dtype, *terms)
        else:
            storage = next((name for name in CODES if self.has_variable("params", name)), None)
            if storage is None:
                shape = (x.shape[-1], self.features)
                kernel: Any = from_bits(self.param("kernel", nn.initializers.lecun_normal(), shape, dtype))
            else:
                kernel = Quantised(self.get_variable("params", storage), self.get_variable("params", "scale"))
            y = frozen_product(x, kernel, adapter, dropped, dtype, self.placement, self.axes)
        if self.bias:
            y = y + from_bits(self.param("bias", nn.initializers.zeros, (self.features,), dtype))
        return _by_rows(y, self.placement, self.axes[1])
