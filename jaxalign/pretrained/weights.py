"""From the tensors of a checkpoint to the model's parameters."""

import dataclasses
import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import unflatten_dict

from jaxalign.errors import UserError
from jaxalign.models.architecture import (
    ATTENTION_PROJECTIONS,
    PROJECTIONS,
    Architecture,
    parameter_axes,
    projection_shape,
)
from jaxalign.models.linear import (
    CODES,
    GROUP,
    codes_of,
    quantised_axes,
    quantised_shapes,
    scales_of,
    to_stored,
)
from jaxalign.parallel.placing import Index, bytes_of_part, placed_in_parts
from jaxalign.parallel.rules import Placement

EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"
"""The Hugging Face names of the embedding and of the output table."""

LAST_NORM = ("norm", "scale")
"""The leaf that is multiplied by `Architecture.logit_scale` when it is loaded."""

_ROWS = 4096  # of these tables that are compared at a time


class TensorSource(Protocol):
    """The tensors of a checkpoint, by their Hugging Face names (`model.layers.0.self_attn.q_proj.weight`)."""

    def names(self) -> list[str]:
        """Return the names of all tensors."""
        ...

    def shape(self, name: str) -> tuple[int, ...]:
        """Return a tensor's shape, in the order of Hugging Face."""
        ...

    def dtype(self, name: str) -> str:
        """Return a tensor's stored type, in the format's own word; raises UserError if it cannot be read."""
        ...

    def read(self, name: str) -> np.ndarray:
        """Return a tensor's values, in a floating-point type."""
        ...

    def raw(self, name: str) -> memoryview:
        """Return a tensor's bytes as they are stored."""
        ...


@dataclass(frozen=True)
class Leaf:
    """One leaf of the parameters, and the tensors that it is made of.

    path        the keys of the leaf in the parameters
    name        the name of the tensor; it contains `{}` for the number of the layer if each layer has one
    shape       the shape of the tensor
    transposed  whether the tensor is [out, in], and the leaf [in, out]
    norm        whether it is the scale of a norm, which is always loaded as float32
    """

    path: tuple[str, ...]
    name: str
    shape: tuple[int, ...]
    transposed: bool = False
    norm: bool = False

    @property
    def projection(self) -> bool:
        """Whether it is the kernel of a projection, which `model.storage` is about."""
        return self.stacked and self.path[-1] == "kernel"

    @property
    def stacked(self) -> bool:
        """Whether the leaf contains all layers, stacked."""
        return "{}" in self.name

    def stored_shape(self, layers: int) -> tuple[int, ...]:
        """Return the shape of the leaf."""
        shape = self.shape[::-1] if self.transposed else self.shape
        return (layers, *shape) if self.stacked else shape

    def names(self, layers: int) -> list[str]:
        """Return the names of the leaf's tensors, in the order of the layers."""
        return [self.name.format(layer) for layer in range(layers)] if self.stacked else [self.name]


class _Array(NamedTuple):
    """An array that a leaf is kept as. Its name is the last key; the type is that of the values, not of their bits."""

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype
    axes: tuple[str | None, ...]


def _arrays(architecture: Architecture, leaf: Leaf, dtype: Any, storage: str | None) -> list[_Array]:
    """Return what a leaf is kept as: itself, or the scales and codes of a quantised kernel."""
    shape, axes = leaf.stored_shape(architecture.layers), parameter_axes(leaf.path)
    if not leaf.projection or storage is None:
        return [_Array(leaf.path[-1], shape, np.dtype(np.float32 if leaf.norm else dtype), axes)]
    if storage not in CODES:
        return [_Array(leaf.path[-1], shape, np.dtype(storage), axes)]
    (layers, inner, outer), (_, inner_axis, outer_axis) = shape, axes
    codes, scale = quantised_shapes(storage, (inner, outer))
    codes_axes, scale_axes = quantised_axes(storage, (inner_axis, outer_axis))
    return [
        _Array("scale", (layers, *scale), np.dtype(np.float32), (None, *scale_axes)),
        _Array(storage, (layers, *codes), CODES[storage], (None, *codes_axes)),
    ]


def parameter_leaves(architecture: Architecture) -> list[Leaf]:
    """Return every leaf of the parameters of a model with this architecture."""
    width, head = architecture.width, (architecture.head_dim,)
    embedding = (architecture.vocab_size, width)

    def norm(ours: str, theirs: str, shape: tuple[int, ...] = (width,)) -> Leaf:
        return Leaf(("layers", ours, "scale"), f"model.layers.{{}}.{theirs}.weight", shape, norm=True)

    found = [Leaf(("embedding", "kernel"), EMBEDDING, embedding)]
    for name in PROJECTIONS:
        prefix = f"model.layers.{{}}.{module_of(name)}"
        inner, outer = projection_shape(architecture, name)
        found.append(Leaf(("layers", name, "kernel"), f"{prefix}.weight", (outer, inner), transposed=True))
        if name in ATTENTION_PROJECTIONS and (architecture.o_bias if name == "o_proj" else architecture.qkv_bias):
            found.append(Leaf(("layers", name, "bias"), f"{prefix}.bias", (outer,)))
    found.append(norm("input_norm", "input_layernorm"))
    found.append(norm("post_attention_norm", "post_attention_layernorm"))
    if architecture.post_norms:
        found.append(norm("pre_mlp_norm", "pre_feedforward_layernorm"))
        found.append(norm("post_mlp_norm", "post_feedforward_layernorm"))
    if architecture.qk_norm:
        found += [norm("q_norm", "self_attn.q_norm", head), norm("k_norm", "self_attn.k_norm", head)]
    found.append(Leaf(LAST_NORM, "model.norm.weight", (width,), norm=True))
    if not architecture.tied:
        found.append(Leaf(("head", "kernel"), HEAD, embedding))
    return found


def module_of(projection: str) -> str:
    """Return the path of a projection in a Hugging Face layer, such as `self_attn.q_proj` or `mlp.up_proj`."""
    return f"{'self_attn' if projection in ATTENTION_PROJECTIONS else 'mlp'}.{projection}"


def with_own_head(architecture: Architecture, source: TensorSource) -> Architecture:
    """Return the architecture, untied if the checkpoint holds a head of other values than the embedding.

    A configuration that says tied may stand beside such a head. Then Transformers uses the head, and so does this
    program. An equal head changes nothing.

    Raises:
        UserError: one of the two is stored in an unknown type.
    """
    if not architecture.tied or not {HEAD, EMBEDDING} <= set(source.names()):
        return architecture
    shapes = {source.shape(HEAD), source.shape(EMBEDDING)}
    equal = shapes == {(architecture.vocab_size, architecture.width)}
    if equal:
        head, embedding = source.read(HEAD), source.read(EMBEDDING)
        blocks = (slice(start, start + _ROWS) for start in range(0, len(head), _ROWS))
        equal = all(np.array_equal(head[block], embedding[block]) for block in blocks)
    return architecture if equal else dataclasses.replace(architecture, tied=False)


def unread_tensors(architecture: Architecture, source: TensorSource) -> list[str]:
    """Return the names of the tensors that no parameter is made of, sorted. The equal head of a tied model is none."""
    read = {name for leaf in parameter_leaves(architecture) for name in leaf.names(architecture.layers)}
    return sorted(set(source.names()) - read - ({HEAD} if architecture.tied else set()))


def all_finite(values: np.ndarray) -> bool:
    """Return whether no value is NaN or infinite."""
    if values.dtype == jnp.bfloat16:
        # By its bits, because NumPy takes long to test this type: the exponent is full from 0x7F80 and from 0xFF80 on.
        return int(values.view(np.int16).max()) < 0x7F80 and int(values.view(np.uint16).max()) < 0xFF80
    return bool(np.isfinite(values).all())


def load_params(
    architecture: Architecture,
    source: TensorSource,
    dtype: Any,
    placement: Placement | None = None,
    storage: str | None = None,
) -> tuple[dict[str, Any], str]:
    """Read the parameters, leaf by leaf, so that at most one leaf is in memory twice.

    Tensors that are no part of the architecture are not read (see `unread_tensors`). On a mesh, each device gets its
    part of a leaf alone, and one such part at a time is on the host. A kernel is quantised tensor by tensor, while it
    is read, from its values in the file.

    Args:
        architecture: of the model.
        source: its tensors.
        dtype: the type of all parameters except the norms: bfloat16 or float32.
        placement: divides the parameters between devices; None for one device.
        storage: how the kernels of the projections are kept: bfloat16, int8 or int4 (see `linear.Quantised`); None
            keeps them in `dtype`.

    Returns:
        The parameters as JAX arrays (bfloat16 as bits, see `linear.to_stored`), and the identity of the base: the
        SHA-256 of the names, stored types, shapes and SHA-256 of the stored bytes of all tensors that were read, in the
        order of their names. It depends neither on how the tensors are distributed over files nor on `dtype` and
        `storage`.

    Raises:
        UserError: a tensor is missing, has another shape, is stored in an unknown type, or holds NaN or infinity.
    """
    table = parameter_leaves(architecture)
    _check(architecture, table, source)
    params: dict[Any, jax.Array] = {}
    lines: list[str] = []
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for leaf in table:
            arrays = _arrays(architecture, leaf, dtype, storage)
            for array, read in _readers(architecture, leaf, source, arrays, pool.map):
                path = (*leaf.path[:-1], array.name)
                if placement is None:
                    # Wait, because otherwise the next leaf would be read while this one is in memory twice.
                    params[path] = jax.device_put(read()).block_until_ready()
                else:
                    params[path] = placed_in_parts(array.shape, placement.sharding(*array.axes), read)
            lines += pool.map(partial(_line, source, leaf), leaf.names(architecture.layers))
    return unflatten_dict(params), _joined(lines)


def abstract_params(
    architecture: Architecture, dtype: Any, placement: Placement | None, storage: str | None = None
) -> dict[str, Any]:
    """Return the parameters that `load_params` reads as shapes and types alone."""

    def abstract(array: _Array) -> jax.ShapeDtypeStruct:
        kind = to_stored(np.empty(0, array.dtype)).dtype
        sharding = None if placement is None else placement.sharding(*array.axes)
        return jax.ShapeDtypeStruct(array.shape, kind, sharding=sharding)

    return unflatten_dict(
        {
            (*leaf.path[:-1], array.name): abstract(array)
            for leaf in parameter_leaves(architecture)
            for array in _arrays(architecture, leaf, dtype, storage)
        }
    )


def bytes_on_device(
    architecture: Architecture, dtype: Any, placement: Placement | None, storage: str | None = None
) -> int:
    """Return the bytes of the parameters that `load_params` puts on each device."""
    return bytes_of_part(abstract_params(architecture, dtype, placement, storage))


def identity_of(architecture: Architecture, source: TensorSource) -> str:
    """Return the identity of a base as `load_params` does, and with the same errors, without keeping its weights."""
    table = parameter_leaves(architecture)
    _check(architecture, table, source)
    tensors = [(leaf, name) for leaf in table for name in leaf.names(architecture.layers)]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return _joined(pool.map(lambda one: _line(source, *one), tensors))


def _line(source: TensorSource, leaf: Leaf, name: str) -> str:
    """Return the line that stands for a tensor in the identity."""
    return f"{name} {source.dtype(name)} {list(leaf.shape)} {hashlib.sha256(source.raw(name)).hexdigest()}"


def _joined(lines: Iterable[str]) -> str:
    return hashlib.sha256("\n".join(sorted(lines)).encode()).hexdigest()


def _readers(
    architecture: Architecture,
    leaf: Leaf,
    source: TensorSource,
    arrays: Sequence[_Array],
    each: Callable[..., Iterator[None]],
) -> Iterator[tuple[_Array, Callable[..., np.ndarray]]]:
    """Yield each array of a leaf with the function that reads a part of it as it is stored, or all of it.

    No part is cut along the layers.
    """
    names = leaf.names(architecture.layers)

    def fill(array: _Array, part: Index, tensor: Callable[..., np.ndarray], *more: Any) -> np.ndarray:
        shape = np.broadcast_to(0, array.shape)[part].shape
        values = np.empty(shape if leaf.stacked else (1, *shape), array.dtype)

        def put(row: np.ndarray, *arguments: Any) -> None:
            row[:] = tensor(*arguments)

        list(each(put, values, names, *more))
        return to_stored(values if leaf.stacked else values[0])

    if len(arrays) == 1:
        (array,) = arrays

        def plain(part: Index = ()) -> np.ndarray:
            inner = part[1:] if leaf.stacked else part
            return fill(array, part, lambda name: _values(architecture, leaf, source, array.dtype, name, inner))

        yield array, plain
        return
    scale, codes = arrays
    weights = partial(_values, architecture, leaf, source, scale.dtype)
    scales = fill(scale, (), lambda name: scales_of(weights(name), codes.name))
    yield scale, lambda part=(): scales[part]

    def quantised(part: Index = ()) -> np.ndarray:
        groups, *_, outputs = part[1:] or (slice(None), slice(None))
        inputs = groups
        if codes.name == "int4":
            start, stop, _ = groups.indices(codes.shape[1])
            inputs = slice(start * GROUP, stop * GROUP)
        mine = scales[:, groups if codes.name == "int4" else slice(None), outputs]
        return fill(
            codes, part, lambda name, scale: codes_of(weights(name, (inputs, outputs)), scale, codes.name), mine
        )

    yield codes, quantised


def _values(
    architecture: Architecture, leaf: Leaf, source: TensorSource, dtype: np.dtype, name: str, part: Index = ()
) -> np.ndarray:
    """Return the values of a tensor of a leaf, or a part of them, in a type; UserError if one is not finite."""
    with np.errstate(over="ignore", invalid="ignore"):  # what does not fit becomes infinite, and is found below
        array = source.read(name)
        array = (array.T if leaf.transposed else array)[part]
        if leaf.norm and architecture.norm_offset:
            array = array.astype(np.float32) + 1
        if leaf.path == LAST_NORM:
            array = array.astype(np.float32) * np.float32(architecture.logit_scale)
        array = array.astype(dtype, copy=False)
    if not all_finite(array):
        raise UserError(
            f"the tensor {name} of the checkpoint holds NaN or infinity (read as {dtype.name}); get the model again"
        )
    return array


def _check(architecture: Architecture, table: list[Leaf], source: TensorSource) -> None:
    present = set(source.names())
    faults = []
    for leaf in table:
        for name in leaf.names(architecture.layers):
            if name not in present:
                faults.append(f"{name} is missing")
            elif tuple(source.shape(name)) != leaf.shape:
                faults.append(f"{name} is {list(source.shape(name))} where {list(leaf.shape)} is needed")
            else:
                source.dtype(name)
    if faults:
        more = f" and {len(faults) - 3} more" if len(faults) > 3 else ""
        raise UserError(
            f"the checkpoint does not fit its {architecture.family} configuration: {'; '.join(faults[:3])}{more}; "
            "get it again, or give the config.json that belongs to it"
        )
