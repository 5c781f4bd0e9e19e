"""Putting arrays on a mesh: each device gets its part alone, and the host holds one part at a time."""

from collections.abc import Callable, Sequence
from math import prod
from typing import Any

import jax
import numpy as np
from jax.sharding import Sharding

from jaxalign.parallel.rules import Placement

Index = tuple[slice, ...]


def placed_in_parts(
    arrays: Sequence[tuple[tuple[int, ...], Sharding]], read: Callable[[Sequence[Index]], Sequence[np.ndarray]]
) -> list[jax.Array]:
    """Return arrays of these shapes on a mesh, whose parts are read together.

    `read` takes the index of a part in each array, and returns these parts. It is called once for each combination that
    a device holds, and only for the devices of this process.
    """
    indices = [sharding.addressable_devices_indices_map(shape) for shape, sharding in arrays]
    devices: dict[str, tuple[list[Index], list[Any]]] = {}
    for device in indices[0]:
        mine = [index[device] or () for index in indices]
        devices.setdefault(str(mine), (mine, []))[1].append(device)
    parts: list[list[jax.Array]] = [[] for _ in arrays]
    for mine, holders in devices.values():
        values = read(mine)
        for one, found in zip(values, parts, strict=True):
            # Wait, because otherwise the next part would be read while this one is on the host.
            found += [jax.device_put(one, device).block_until_ready() for device in holders]
            del one
        del values
    return [
        jax.make_array_from_single_device_arrays(shape, sharding, found)
        for (shape, sharding), found in zip(arrays, parts, strict=True)
    ]


def placed(placement: Placement | None, tree: Any, *axes: str | None) -> Any:
    """Return a pytree of arrays, equal in every process, on a mesh by their logical axes; without axes, each is whole.

    Without a placement, the arrays are copied to the one device. The result never shares memory with `tree`.
    """
    if placement is None:
        return jax.tree.map(jax.numpy.array, tree)
    sharding = placement.sharding(*axes)

    def put(leaf: Any) -> jax.Array:
        values = np.asarray(leaf)
        return jax.make_array_from_callback(values.shape, sharding, lambda index: np.array(values[index]))

    return jax.tree.map(put, tree)


def described(placement: Placement | None, tree: Any, *axes: str | None) -> Any:
    """Return the shapes, types and shardings of what `placed` returns, which puts nothing on a device."""
    sharding = None if placement is None else placement.sharding(*axes)
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), tree)


def bytes_of_part(tree: Any) -> int:
    """Return the bytes that each device holds of a pytree of arrays, or of their shapes and types."""

    def held(leaf: Any) -> int:
        sharding = getattr(leaf, "sharding", None)
        shape = leaf.shape if sharding is None else sharding.shard_shape(leaf.shape)
        return prod(shape) * leaf.dtype.itemsize

    return sum(map(held, jax.tree.leaves(tree)))
