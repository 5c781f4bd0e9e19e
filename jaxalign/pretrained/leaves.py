"""Reading the leaves of a model's parameters from the tensors of a checkpoint, in parts and block by block."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from math import prod
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from jaxalign.errors import UserError
from jaxalign.models.architecture import Architecture
from jaxalign.models.linear import SCALE_GROUP, codes_of, scales_of, to_stored
from jaxalign.parallel.placing import Index
from jaxalign.pretrained.parameters import LAST_NORM, Leaf, TensorParts, TensorSource

CONVERTED = 1 << 19
"""The largest number of values of a tensor that a thread converts at a time: 2 MB in float32, several times over."""


class LeafArray(NamedTuple):
    """An array that a leaf is kept as. Its name is the last key; the type is that of the values, not of their bits."""

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype
    axes: tuple[str | None, ...]


def leaf_reader(
    architecture: Architecture,
    leaf: Leaf,
    source: TensorSource,
    arrays: Sequence[LeafArray],
    each: Callable[..., Iterator[None]],
) -> Callable[[Sequence[Index]], list[np.ndarray]]:
    """Return the function that reads a part of a leaf: from the part's index in each array, its values as they are
    stored. An empty index is all of an array. No part is cut along the layers.
    """
    names = leaf.names(architecture.layers)
    shape = leaf.shape[::-1] if leaf.transposed else leaf.shape

    def tensor(name: str, dtype: np.dtype) -> Callable[[Index], np.ndarray]:
        return partial(_values, architecture, leaf, source.parts(name), name, dtype)

    def blocks(part: Index) -> Iterator[tuple[Index, Index]]:
        return _blocks(shape, part, len(shape) - 1 if leaf.transposed else 0)

    def empty(array: LeafArray, part: Index) -> np.ndarray:
        shape = np.broadcast_to(0, array.shape)[part].shape
        return np.empty(shape if leaf.stacked else (1, *shape), array.dtype)

    def unquantised(parts: Sequence[Index]) -> list[np.ndarray]:
        (array,), (part,) = arrays, parts
        values, inner = empty(array, part), part[1:] if leaf.stacked else part

        def put(name: str, row: np.ndarray) -> None:
            read = tensor(name, array.dtype)
            for place, index in blocks(inner):
                row[place] = read(index)

        list(each(put, names, values))
        return [to_stored(values if leaf.stacked else values[0])]

    if len(arrays) == 1:
        return unquantised
    scale, codes = arrays
    storage = codes.name
    known: dict[str, np.ndarray] = {}  # the scales of outputs whose inputs are in several parts

    def scales(part: Index) -> np.ndarray:
        if (key := str(part)) not in known:
            values, outputs = empty(scale, part), part[2]

            def put(name: str, row: np.ndarray) -> None:
                read = tensor(name, scale.dtype)
                for (_, place), index in blocks((slice(None), outputs)):
                    row[..., place] = scales_of(read(index), storage)

            list(each(put, names, values))
            known[key] = values
        return known[key]

    def quantised(parts: Sequence[Index]) -> list[np.ndarray]:
        (groups, *_, outputs), count = parts[1][1:] or (slice(None), slice(None)), codes.shape[1]
        start, stop, _ = groups.indices(count)
        size = SCALE_GROUP if storage == "int4" else 1
        inputs, cut = slice(start * size, stop * size), storage == "int8" and stop - start < count
        mine, numbers = scales(parts[0]) if cut else empty(scale, parts[0]), empty(codes, parts[1])

        def put(name: str, own: np.ndarray, row: np.ndarray) -> None:
            read = tensor(name, scale.dtype)
            for (_, place), index in blocks((inputs, outputs)):
                values = read(index)
                if not cut:
                    own[..., place] = scales_of(values, storage)
                row[..., place] = codes_of(values, own[..., place], storage)

        list(each(put, names, mine, numbers))
        return [mine, to_stored(numbers)]

    return quantised


def _blocks(shape: tuple[int, ...], part: Index, axis: int) -> Iterator[tuple[Index, Index]]:
    """Yield the blocks of a part of a tensor, cut along one axis: (place in the part, place in the tensor).

    A block has at most `CONVERTED` values, or one index of the axis. An empty `part` is all of the tensor.
    """
    part = part or (slice(None),) * len(shape)
    bounds = [one.indices(size)[:2] for one, size in zip(part, shape, strict=True)]
    first, last = bounds[axis]
    others = prod(stop - start for number, (start, stop) in enumerate(bounds) if number != axis)
    step, all_of = max(CONVERTED // max(others, 1), 1), (slice(None),) * len(shape)
    for start in range(first, last, step):
        stop = min(start + step, last)
        own, whole = slice(start - first, stop - first), slice(start, stop)
        yield (*all_of[:axis], own, *all_of[axis + 1 :]), (*part[:axis], whole, *part[axis + 1 :])


def _values(
    architecture: Architecture, leaf: Leaf, held: TensorParts, name: str, dtype: np.dtype, part: Index
) -> np.ndarray:
    """Return a part of a tensor of a leaf in a type; UserError if a value is not finite."""
    with np.errstate(over="ignore", invalid="ignore"):  # what does not fit becomes infinite, and is found below
        array = held[part[::-1]].T if leaf.transposed else held[part]
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


def all_finite(values: np.ndarray) -> bool:
    """Return whether no value is NaN or infinite."""
    if values.dtype == jnp.bfloat16:
        # By its bits, because NumPy takes long to test this type: the exponent is full from 0x7F80 and from 0xFF80 on.
        return int(values.view(np.int16).max()) < 0x7F80 and int(values.view(np.uint16).max()) < 0xFF80
    return bool(np.isfinite(values).all())
