"""The one table that lays every array out on a mesh of devices: from logical axes to axes of the mesh."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

MESH_AXES = ADAPTER, DATA, FSDP, TENSOR = ("adapter", "data", "fsdp", "tensor")
"""The axes of every mesh, from the one whose devices talk least to each other to the one whose devices talk most."""

RULES: dict[str, tuple[tuple[str, ...], ...]] = {
    "adapters": ((ADAPTER,),),
    "rows": ((DATA, FSDP),),
    "slots": ((DATA,),),
    "width": ((FSDP,),),
    "heads": ((TENSOR,),),
    "ff": ((TENSOR,),),
    "vocabulary": ((TENSOR,), (FSDP,)),
}
"""For each logical axis, in order of preference, the axes of the mesh that divide it. What is not named is whole on
every device: layers, length, rank, norms, adapters, optimiser, metrics.

adapters    of a stack, with their state and batches
rows        of a batch, and of the activations that come from it
slots       of the sampler, each with a prompt and the rows that answer it. Beside them the few activations of a step
            travel, and the weights stay where they are
width       of the model, in kernels alone: where it is contracted in q, k, v, gate and up, and produced in o and down.
            A layer's kernels are gathered over it when the layer runs (fully sharded data parallelism, FSDP; Zhao et
            al., 2023, arXiv 2304.11277)
heads       key/value heads, with the query heads of each
ff          the width of the feed-forward layers
vocabulary  of embedding and head, whose width is never divided
"""


@dataclass(frozen=True)
class Placement:
    """A mesh, and for each logical axis of a model the axes of the mesh that divide it.

    It is hashable, so a network that has one is still a static argument of a program. One device has none (None).
    """

    mesh: Mesh
    divided: tuple[tuple[str, tuple[str, ...]], ...]
    """(logical axis, axes of the mesh); a logical axis that is not named is whole on every device."""

    def over(self, axis: str | None) -> tuple[str, ...]:
        """Return the axes of the mesh that divide a logical axis; empty if it is whole on every device."""
        return dict(self.divided).get(axis or "", ())

    def parts(self, axis: str) -> int:
        """Return the number of parts of a logical axis."""
        return prod(self.mesh.shape[name] for name in self.over(axis))

    def fitting(self, **sizes: int) -> "Placement":
        """Return the placement without those logical axes that their mesh axes do not divide, given their sizes."""
        fits = [(axis, names) for axis, names in self.divided if not sizes.get(axis, 0) % self.parts(axis)]
        return Placement(self.mesh, tuple(fits))

    def spec(self, *axes: str | None) -> PartitionSpec:
        """Return the spec of an array with these logical axes; None, and all further axes, are whole."""
        return PartitionSpec(*(self.over(axis) or None for axis in axes))

    def sharding(self, *axes: str | None) -> NamedSharding:
        """Return the sharding of an array with these logical axes."""
        return NamedSharding(self.mesh, self.spec(*axes))


def placement_of(mesh: Mesh, sizes: Mapping[str, int]) -> Placement:
    """Return the placement of a model on a mesh; an axis that its mesh axes do not divide stays whole.

    `sizes` has the size of each logical axis of the model. Axes without one (rows, slots, adapters) differ from batch
    to batch: rows are filled up until they can be divided, and for the others see `Placement.fitting`.
    """
    divided = []
    for axis, choices in RULES.items():
        parts = {names: prod(mesh.shape[name] for name in names) for names in choices}
        fitting = [names for names, count in parts.items() if count > 1 and not sizes.get(axis, 0) % count]
        if fitting:
            divided.append((axis, fitting[0]))
    return Placement(mesh, tuple(divided))


def undivided_lines(mesh: Mesh, sizes: Mapping[str, int]) -> list[str]:
    """Return a line for each logical axis of a model that stays whole, because the mesh does not divide it."""
    lines, placement = [], placement_of(mesh, sizes)
    for axis, size in sizes.items():
        asked = [f"mesh.{name}={mesh.shape[name]}" for (name,) in RULES[axis] if mesh.shape[name] > 1]
        if asked and not placement.over(axis):
            lines.append(f"{axis}: {size} is not divided by {' nor '.join(asked)}, so each device holds all of it")
    return lines


def constrained(placement: Placement | None, x: Any, *axes: str | None) -> Any:
    """Return an array, or a pytree of arrays with the same first axes, laid out by its logical axes.

    Without a placement it is returned as it is. Only for use inside a program.
    """
    return x if placement is None else jax.lax.with_sharding_constraint(x, placement.sharding(*axes))


def map_adapters(placement: Placement | None) -> str | tuple[str, ...] | None:
    """Return the `spmd_axis_name` of a `jax.vmap` over stacked adapters: the axis of the mesh that divides them."""
    return None if placement is None else placement.over("adapters") or None
