"""From the tensors of a checkpoint to the model's parameters."""

import dataclasses
import hashlib
import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import jax
import numpy as np
from flax.traverse_util import unflatten_dict

from jaxalign.errors import UserError
from jaxalign.models.architecture import Architecture, parameter_axes
from jaxalign.models.linear import CODES, quantised_axes, quantised_shapes, to_stored
from jaxalign.parallel.placing import bytes_of_part, placed_in_parts
from jaxalign.parallel.rules import Placement
from jaxalign.pretrained.leaves import LeafArray, leaf_reader
from jaxalign.pretrained.parameters import EMBEDDING, HEAD, Leaf, TensorSource, parameter_leaves

_ROWS = 4096  # of these tables that are compared at a time

THREADS = 16
"""The largest number of threads that read: more of them would hold more memory, and wait for the disk."""


def _arrays(architecture: Architecture, leaf: Leaf, dtype: Any, storage: str | None) -> list[LeafArray]:
    """Return what a leaf is kept as: itself, or the scales and codes of a quantised kernel."""
    shape, axes = leaf.stored_shape(architecture.layers), parameter_axes(leaf.path)
    if not leaf.projection or storage is None:
        return [LeafArray(leaf.path[-1], shape, np.dtype(np.float32 if leaf.norm else dtype), axes)]
    if storage not in CODES:
        return [LeafArray(leaf.path[-1], shape, np.dtype(storage), axes)]
    (layers, inner, outer), (_, inner_axis, outer_axis) = shape, axes
    codes, scale = quantised_shapes(storage, (inner, outer))
    codes_axes, scale_axes = quantised_axes(storage, (inner_axis, outer_axis))
    return [
        LeafArray("scale", (layers, *scale), np.dtype(np.float32), (None, *scale_axes)),
        LeafArray(storage, (layers, *codes), CODES[storage], (None, *codes_axes)),
    ]


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
    """Return the names of the tensors that no parameter is made of, sorted.

    The head of a tied model is left out, because it equals the embedding.
    """
    read = {name for leaf in parameter_leaves(architecture) for name in leaf.names(architecture.layers)}
    return sorted(set(source.names()) - read - ({HEAD} if architecture.tied else set()))


def load_params(
    architecture: Architecture,
    source: TensorSource,
    dtype: Any,
    placement: Placement | None = None,
    storage: str | None = None,
) -> tuple[dict[str, Any], str]:
    """Read the parameters, leaf by leaf, so that at most one leaf is in memory twice.

    Tensors that are no part of the architecture are not read (see `unread_tensors`). On a mesh, each device gets its
    part of a leaf alone, and one such part at a time is on the host; a process reads only the parts of its devices. A
    kernel is quantised tensor by tensor, while it is read, from its values in the file. In int8, a scale needs all
    inputs of its output: where a mesh divides the inputs, a process first reads all of them for its outputs, and then
    its parts again.

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
    with ThreadPoolExecutor(min(os.cpu_count() or 1, THREADS)) as pool:
        for leaf in table:
            arrays = _arrays(architecture, leaf, dtype, storage)
            read = leaf_reader(architecture, leaf, source, arrays, pool.map)
            if placement is None:
                # Wait, because otherwise the next leaf would be read while this one is in memory twice.
                made = [jax.device_put(values).block_until_ready() for values in read([()] * len(arrays))]
            else:
                kinds = [(array.shape, placement.sharding(*array.axes)) for array in arrays]
                made = placed_in_parts(kinds, read)
            params |= {(*leaf.path[:-1], array.name): one for array, one in zip(arrays, made, strict=True)}
            lines += pool.map(partial(_line, source, leaf), leaf.names(architecture.layers))
    return unflatten_dict(params), _joined(lines)


def abstract_params(
    architecture: Architecture, dtype: Any, placement: Placement | None, storage: str | None = None
) -> dict[str, Any]:
    """Return the parameters that `load_params` reads as shapes and types alone."""

    def abstract(array: LeafArray) -> jax.ShapeDtypeStruct:
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
