"""A mesh that does not fit its devices is refused in one line, and what does not divide stays whole, and is said."""

import jax
import pytest
from jax.sharding import AbstractMesh

from jaxalign.config.model import MeshConfig
from jaxalign.errors import UserError
from jaxalign.parallel import mesh as mesh_module
from jaxalign.parallel.mesh import build_mesh, check_memory, device_lines, too_large
from jaxalign.parallel.rules import MESH_AXES, placement_of, undivided_lines

SIZES = {"width": 64, "heads": 3, "ff": 96, "vocabulary": 104}


def sizes(adapter=1, data=1, fsdp=-1, tensor=1):
    return {"adapter": adapter, "data": data, "fsdp": fsdp, "tensor": tensor}


@pytest.fixture
def eight(monkeypatch):
    """Let there be eight devices, which nothing is put on."""
    monkeypatch.setattr(mesh_module.jax, "devices", lambda: jax.local_devices() * 8)
    monkeypatch.setattr(
        mesh_module.jax, "make_mesh", lambda shape, axes, types, devices: AbstractMesh(tuple(shape), axes)
    )


@pytest.mark.parametrize(
    ("asked", "shape"),
    [({}, (1, 1, 8, 1)), ({"data": 2}, (1, 2, 4, 1)), ({"tensor": 2, "fsdp": 2}, (1, 1, 2, 2))],
)
def test_the_axis_of_size_minus_one_takes_the_rest(eight, asked, shape):
    found = build_mesh(sizes(**asked))
    assert tuple(found.shape[axis] for axis in MESH_AXES) == shape
    assert ("not used" in device_lines(found)[-1]) == (shape == (1, 1, 2, 2))


def test_a_mesh_that_does_not_divide_the_devices_is_refused(eight):
    with pytest.raises(UserError, match=r"^mesh.data=3 does not divide 8 devices: give sizes whose product divides 8"):
        build_mesh(sizes(data=3))
    with pytest.raises(UserError, match=r"^mesh.data=4 x mesh.tensor=4 does not divide 8 devices"):
        build_mesh(sizes(data=4, tensor=4, fsdp=1))


def test_two_axes_cannot_both_take_the_rest():
    with pytest.raises(UserError, match=r"^mesh.data and mesh.fsdp are both -1"):
        MeshConfig(name="mine", **sizes(data=-1))


def test_one_device_has_no_mesh_and_many_are_named_if_one_alone_is_used(eight, monkeypatch):
    assert build_mesh(sizes(fsdp=1)) is None
    assert device_lines(None)[-1] == "7 of 8 devices are not used: mesh=auto uses all"
    monkeypatch.undo()
    assert build_mesh(sizes()) is None
    assert device_lines(None) == ["devices: 1 x cpu; mesh: one device"]


def test_what_the_mesh_does_not_divide_is_whole_and_said(eight):
    mesh = build_mesh(sizes(data=2, fsdp=2, tensor=2))
    placement = placement_of(mesh, SIZES)
    assert undivided_lines(mesh, SIZES) == ["heads: 3 is not divided by mesh.tensor=2, so each device holds all of it"]
    assert placement.spec(None, "width", "heads") == jax.P(None, ("fsdp",), None)
    assert placement.spec("vocabulary") == jax.P(("tensor",))  # never over the width, and over one axis alone
    assert placement.spec("rows") == jax.P(("data", "fsdp"))
    wide = placement_of(build_mesh(sizes()), SIZES)
    assert wide.spec("vocabulary") == jax.P(("fsdp",))
    assert placement.fitting(slots=3).over("slots") == ()


def test_a_mesh_that_leaves_out_a_process_is_refused(eight, monkeypatch):
    monkeypatch.setattr(mesh_module, "process_count", lambda: 2)
    with pytest.raises(UserError, match=r"^the devices are those of 1 processes, and the environment names 2: give"):
        build_mesh(sizes())
    monkeypatch.setattr(mesh_module.jax, "process_count", lambda: 2)
    with pytest.raises(UserError, match=r"^2 processes have 8 devices, and the mesh takes 4 of them"):
        build_mesh(sizes(fsdp=4))
    assert device_lines(build_mesh(sizes()))[0] == "devices: 8 x cpu in 2 processes; mesh: fsdp 8"


def test_a_step_that_is_larger_than_a_device_is_told_with_what_to_change(monkeypatch):
    monkeypatch.setattr(mesh_module, "memory_of_device", lambda: 16_000_000_000)
    (line,) = too_large(22_600_000_000)
    assert "a device has 16,000 MB, which is less" in line and "training.max_rows" in line
    assert too_large(15_000_000_000) == []
    monkeypatch.setattr(mesh_module, "memory_of_device", lambda: None)
    assert too_large(10**15) == []


def test_a_base_that_is_larger_than_a_device_is_refused_with_what_to_change(monkeypatch):
    monkeypatch.setattr(mesh_module, "memory_of_device", lambda: 16_000_000_000)
    with pytest.raises(UserError, match=r"^the base takes 16\.2 GB on each device, and a device has 16\.0 GB: div"):
        check_memory(16_200_000_000)
    check_memory(15_000_000_000)
