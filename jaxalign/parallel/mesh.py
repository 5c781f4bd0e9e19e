"""The mesh of devices that a command uses."""

from collections.abc import Mapping
from math import prod

import jax
from jax.sharding import AxisType, Mesh

from jaxalign.errors import UserError
from jaxalign.parallel.distributed import process_count
from jaxalign.parallel.rendezvous import ADDRESS, COUNT, NUMBER
from jaxalign.parallel.rules import MESH_AXES


def build_mesh(sizes: Mapping[str, int]) -> Mesh | None:
    """Return the mesh of the first devices; None for one device.

    `sizes` has the size of each of `MESH_AXES`; one of them may be -1, which takes the devices that the others leave.

    Raises:
        UserError: the sizes do not divide the devices, or leave out some devices of several processes; or more
            processes are there than have joined.
    """
    devices = jax.devices()
    if (found := jax.process_count()) != process_count():  # such as a TPU pod on which nothing is said of its hosts
        raise UserError(
            f"the devices are those of {found} processes, and the environment names {process_count()}: give each its "
            f"{COUNT}, {NUMBER} and {ADDRESS}, as the files of launch/ do"
        )
    fixed = prod(size for size in sizes.values() if size != -1)
    asked = " x ".join(f"mesh.{axis}={size}" for axis, size in sizes.items() if size not in (1, -1))
    if len(devices) % fixed:
        raise UserError(
            f"{asked} does not divide {len(devices)} device{'s' if len(devices) > 1 else ''}: give sizes whose product "
            f"divides {len(devices)}, or mesh=auto"
        )
    shape = [len(devices) // fixed if sizes[axis] == -1 else sizes[axis] for axis in MESH_AXES]
    if process_count() > 1 and prod(shape) < len(devices):
        raise UserError(
            f"{process_count()} processes have {len(devices)} devices, and the mesh takes {prod(shape)} of them, but "
            "each process must work on all of its own: give mesh=auto, or sizes whose product is that of all devices"
        )
    if prod(shape) == 1:
        return None
    # Auto: XLA lays arrays out, following our constraints.
    return jax.make_mesh(shape, MESH_AXES, (AxisType.Auto,) * len(shape), devices=devices[: prod(shape)])


def check_memory(needed: int) -> None:
    """Raise UserError if the bytes of a base on each device are more than a device reports to have."""
    there = memory_of_device()
    if there is not None and needed > there:
        raise UserError(
            f"the base takes {needed / 1e9:,.1f} GB on each device, and a device has {there / 1e9:,.1f} GB: divide it "
            "between more devices (mesh.fsdp, mesh.tensor), keep it in fewer bits (model.storage=int8), or take a "
            "smaller model"
        )


def memory_of_device() -> int | None:
    """Return the bytes that a device has for programs and their arguments; None if it does not report them."""
    return (jax.local_devices()[0].memory_stats() or {}).get("bytes_limit")


def too_large(needed: int) -> list[str]:
    """Return a line if a step needs more bytes on each device than a device has; no line if it does not report that."""
    there = memory_of_device()
    if there is None or needed <= there:
        return []
    return [
        f"a device has {there / 1e6:,.0f} MB, which is less: compute fewer rows at once (training.max_rows), keep less "
        "(training.rematerialisation=full), or divide the base between more devices (mesh.fsdp, mesh.tensor)"
    ]


def device_lines(mesh: Mesh | None) -> list[str]:
    """Return lines that say which devices there are, how they share the work, and which of them are not used."""
    devices = jax.devices()
    kinds = sorted({device.device_kind for device in devices})
    there = f"{len(devices)} x {', '.join(kinds)}"
    if (processes := process_count()) > 1:
        there += f" in {processes} processes"
    shape = {} if mesh is None else {axis: size for axis, size in mesh.shape.items() if size > 1}
    lines = [f"devices: {there}; mesh: {' x '.join(f'{axis} {size}' for axis, size in shape.items()) or 'one device'}"]
    unused = len(devices) - prod(shape.values())
    if unused:
        lines.append(f"{unused} of {len(devices)} devices are not used: mesh=auto uses all")
    return lines
