"""The mesh of devices that a command uses."""

from collections.abc import Mapping
from math import prod

import jax
from jax.sharding import AxisType, Mesh

from jaxalign.errors import UserError
from jaxalign.parallel.rules import MESH_AXES


def build_mesh(sizes: Mapping[str, int]) -> Mesh | None:
    """Return the mesh of the first devices; None for one device.

    `sizes` has the size of each of `MESH_AXES`; one of them may be -1, which takes the devices that the others leave.

    Raises:
        UserError: the sizes do not divide the devices.
    """
    devices = jax.devices()
    fixed = prod(size for size in sizes.values() if size != -1)
    asked = " x ".join(f"mesh.{axis}={size}" for axis, size in sizes.items() if size not in (1, -1))
    if len(devices) % fixed:
        raise UserError(
            f"{asked} does not divide {len(devices)} device{'s' if len(devices) > 1 else ''}: give sizes whose product "
            f"divides {len(devices)}, or mesh=auto"
        )
    shape = [len(devices) // fixed if sizes[axis] == -1 else sizes[axis] for axis in MESH_AXES]
    if prod(shape) == 1:
        return None
    # Auto: XLA lays arrays out, following our constraints.
    return jax.make_mesh(shape, MESH_AXES, (AxisType.Auto,) * len(shape), devices=devices[: prod(shape)])


def check_memory(needed: int) -> None:
    """Raise UserError if the bytes of a base on each device are more than a device has, where it tells."""
    there = (jax.local_devices()[0].memory_stats() or {}).get("bytes_limit")
    if there is not None and needed > there:
        raise UserError(
            f"the base takes {needed / 1e9:,.1f} GB on each device, and a device has {there / 1e9:,.1f} GB: divide it "
            "between more devices (mesh.fsdp, mesh.tensor), keep it in fewer bits (model.storage=int8), or take a "
            "smaller model"
        )


def device_lines(mesh: Mesh | None) -> list[str]:
    """Return lines that say which devices there are, how they share the work, and which of them are not used."""
    devices = jax.devices()
    kinds = sorted({device.device_kind for device in devices})
    there = f"{len(devices)} x {', '.join(kinds)}"
    shape = {} if mesh is None else {axis: size for axis, size in mesh.shape.items() if size > 1}
    lines = [f"devices: {there}; mesh: {' x '.join(f'{axis} {size}' for axis, size in shape.items()) or 'one device'}"]
    unused = len(devices) - prod(shape.values())
    if unused:
        lines.append(f"{unused} of {len(devices)} devices are not used: mesh=auto uses all")
    return lines
