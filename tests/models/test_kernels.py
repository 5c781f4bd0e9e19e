"""The kernels of others give what our attention does. Run as a script, this file computes on 16 fake devices."""

import dataclasses
import json
import os
import sys
from functools import partial
from importlib.util import find_spec

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from child_process import Child
from tiny_model import ARCHITECTURE, MODEL, packed, random_adapter, random_params, random_tree

from jaxalign.data.packing import Shape, pack
from jaxalign.errors import UserError
from jaxalign.models import kernels
from jaxalign.models.attention import tree_attention
from jaxalign.models.kernels import KERNELS, Splash, choose_attention, kernel_attention
from jaxalign.models.lora import effective
from jaxalign.objectives.forward import batch_log_probs
from jaxalign.training.step import step_batch

HEADS, GROUPS, SIZE = 1, 2, 8
PACKAGE = pytest.mark.skipif(find_spec("tokamax") is None, reason="tokamax is not installed: pip install tokamax")
BOTH = ["splash", pytest.param("tokamax", marks=PACKAGE)]
WINDOWED = dataclasses.replace(ARCHITECTURE, windows=(0, 9), attention_softcap=1.3)


@pytest.fixture(autouse=True)
def interpreted(monkeypatch):
    """Splash runs on the CPU, and its blocks are so small that a row has several. tokamax takes XLA there by itself."""
    monkeypatch.setitem(KERNELS, "splash", Splash(interpret=True))
    monkeypatch.setattr(kernels, "LARGEST_BLOCK", 128)


def output_and_gradients(attention, batch, *arrays):
    """Return what an attention gives for (q, k, v, upstream gradient): its output, and its three gradients."""

    def compute(q, k, v, upstream, ends, positions):
        output, pull = jax.vjp(lambda *arrays: attention(*arrays, ends, positions), q, k, v)
        return output, *pull(upstream)

    return jax.jit(compute)(*arrays, batch.ends, batch.positions)


@pytest.mark.parametrize("name", BOTH)
@pytest.mark.parametrize(
    ("tokens", "window", "softcap"),
    [(200, 17, 1.3), pytest.param(256, 0, None, marks=pytest.mark.slow)],
    ids=["window, soft cap and padding", "plain"],
)
def test_output_and_gradients_of_a_kernel_are_those_of_our_attention(name, tokens, window, softcap):
    random = np.random.default_rng(tokens)
    batch = packed([random_tree(random, 6, longest=30) for _ in range(3)], tokens)
    rows = batch.tokens.shape[0]
    shapes = [(rows, HEADS, GROUPS, tokens, SIZE), (rows, HEADS, tokens, SIZE), (rows, HEADS, tokens, SIZE)]
    arrays = [jnp.asarray(random.standard_normal(shape), jnp.float32) for shape in (*shapes, shapes[0])]
    one = jnp.int32(window)

    def theirs(q, k, v, ends, positions):
        return kernel_attention(name, ends, positions, (0, window, 2 * tokens), None)(q, k, v, one, 0.4, softcap)

    def ours(q, k, v, ends, positions):
        return tree_attention(q, k, v, ends, positions, batch.blocks, one, 0.4, softcap)

    wanted = output_and_gradients(ours, batch, *arrays)
    for found, expected in zip(output_and_gradients(theirs, batch, *arrays), wanted, strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-5)


@PACKAGE
@pytest.mark.parametrize(
    ("heads", "groups", "size", "tokens", "window"),
    [(3, 3, 64, 1024, 0), (3, 3, 64, 700, 0), (8, 4, 128, 1024, 0), (8, 4, 128, 2048, 300)],
    ids=["135M", "135M, padding", "8B", "8B, window"],
)
def test_on_a_gpu_tokamax_rounds_little_more_than_our_attention(heads, groups, size, tokens, window):
    if jax.devices()[0].platform != "gpu":
        pytest.skip("needs a GPU: JAX_PLATFORMS=cuda pytest -n 0 -s -k on_a_gpu")
    rounding = rounding_of_both(heads, groups, size, tokens, window)
    print(json.dumps(rounding))
    assert max(rounding["blocks"]) < 4e-3
    assert max(rounding["tokamax"]) < 1e-2  # an H100 gave 0.0074, for the gradient of keys that four heads share


def rounding_of_both(heads, groups, size, tokens, window):
    """Return how far output and gradients in bfloat16 are from those in float32, as relative norms."""
    random = np.random.default_rng(tokens)
    batch = packed([random_tree(random, 6, longest=min(60, tokens // 8)) for _ in range(16)], tokens)
    batch, one = jax.tree.map(jnp.asarray, batch), jnp.int32(window)
    rows = batch.tokens.shape[0]
    shapes = [(rows, heads, groups, tokens, size), (rows, heads, tokens, size), (rows, heads, tokens, size)]
    half = [jnp.asarray(random.standard_normal(shape), jnp.bfloat16) for shape in (*shapes, shapes[0])]

    def theirs(q, k, v, ends, positions):
        return kernel_attention("tokamax", ends, positions, (window,), None)(q, k, v, one, size**-0.5, None)

    def ours(q, k, v, ends, positions):
        return tree_attention(q, k, v, ends, positions, batch.blocks, one, size**-0.5, None)

    exact = output_and_gradients(ours, batch, *(array.astype(jnp.float32) for array in half))

    def distance(found, wanted):
        return float(jnp.linalg.norm((found.astype(jnp.float32) - wanted).ravel()) / jnp.linalg.norm(wanted.ravel()))

    found = {
        name: output_and_gradients(attend, batch, *half) for name, attend in (("blocks", ours), ("tokamax", theirs))
    }
    return {name: [distance(*pair) for pair in zip(arrays, exact, strict=True)] for name, arrays in found.items()}


def loss(model, params, adapter, batch):
    return (batch_log_probs(model, params, effective(adapter, 1.0), batch) * batch.weight).sum() / batch.weight.sum()


def test_the_forward_pass_of_splash_is_not_repeated_where_the_projections_are_saved(params):
    random = np.random.default_rng(0)
    batch, adapter = pack([random_tree(random, 4)], Shape(2, 32, 32)), random_adapter(targets=("q_proj",))
    model = MODEL.clone(rematerialisation="projections", attention="splash")
    program = jax.make_jaxpr(jax.grad(lambda adapter: loss(model, params, adapter, batch)))(adapter)
    assert str(program).count(" pallas_call[") == 3  # forwards, the gradient of queries, and that of keys and values


def test_a_kernel_needs_no_lists_of_blocks_so_batches_of_a_shape_share_a_program(params):
    few, many = (packed([random_tree(np.random.default_rng(0), 6, longest=most)], 256) for most in (9, 40))
    model, adapter = MODEL.clone(attention="splash"), random_adapter(targets=("q_proj",))
    _, without = given = [step_batch(model, batch) for batch in (few, many)]
    assert few.blocks.shape != many.blocks.shape and {batch.blocks.shape[-1] for batch in given} == {0}
    assert step_batch(MODEL, many).blocks.shape == many.blocks.shape  # our own attention reads them
    wanted, found = (jax.jit(partial(loss, model))(params, adapter, batch) for batch in (many, without))
    assert found == wanted


@pytest.mark.slow
@pytest.mark.parametrize("name", BOTH)
def test_on_several_devices_each_one_attends_with_its_own_adapters_rows_and_heads(name):
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=16"
    child = Child("models.test_kernels", [name], os.environ | {"XLA_FLAGS": flags})
    differences = json.loads(child.printed().splitlines()[-1])
    assert set(differences) == {"one device", "2 x 2 x 2 x 2 devices"}
    assert max(differences.values()) < 1e-6


@pytest.mark.slow
def test_the_row_on_which_a_kernel_is_tried_compiles():
    kernels._compile_one_row("splash", ARCHITECTURE, jnp.dtype("bfloat16"))


def on(monkeypatch, platform, kind, capability=None, compiles=lambda *model: None, installed=True):
    """Let the only device be of this kind."""
    device = type("Device", (), {"platform": platform, "device_kind": kind, "compute_capability": capability})()
    monkeypatch.setattr(kernels.jax, "devices", lambda: [device])
    monkeypatch.setattr(kernels, "_compile_one_row", compiles)
    monkeypatch.setattr(kernels, "find_spec", lambda name: installed or None)


@pytest.mark.parametrize(
    ("device", "dtype", "chosen"),
    [
        (("cpu", "cpu"), "bfloat16", ("blocks", None)),
        (("tpu", "TPU v5 lite"), "bfloat16", ("splash", None)),
        (("tpu", "TPU v6e"), "float32", ("blocks", "splash multiplies in bfloat16, and this is precision=float32")),
        (("gpu", "NVIDIA H100", "9.0"), "bfloat16", ("tokamax", None)),
        (("gpu", "NVIDIA B200", "10.0"), "bfloat16", ("tokamax", None)),
        (("gpu", "NVIDIA A100", "8.0"), "bfloat16", ("tokamax", None)),
        (("gpu", "A40", "8.6"), "bfloat16", ("blocks", "tokamax is for A100, H100, H200 and B200, and this is A40")),
        (
            ("gpu", "MI300", "gfx942"),
            "bfloat16",
            ("blocks", "tokamax is for A100, H100, H200 and B200, and this is MI300"),
        ),
    ],
)
def test_auto_takes_the_kernel_of_the_device_or_says_why_it_does_not(monkeypatch, device, dtype, chosen):
    on(monkeypatch, *device)
    assert choose_attention("auto", ARCHITECTURE, jnp.dtype(dtype)) == chosen
    assert choose_attention("blocks", ARCHITECTURE, jnp.dtype(dtype)) == ("blocks", None)


def test_what_a_kernel_refuses_is_computed_by_blocks_and_refused_where_it_was_asked_for(monkeypatch):
    def refuse(*model):
        raise NotImplementedError("\n`logits_soft_cap` unsupported.\nand more")

    on(monkeypatch, "gpu", "NVIDIA A100", "8.0", compiles=refuse)
    why = "tokamax refuses this model (`logits_soft_cap` unsupported.)"
    assert choose_attention("auto", WINDOWED, jnp.bfloat16) == ("blocks", why)
    with pytest.raises(UserError) as refused:
        choose_attention("tokamax", WINDOWED, jnp.bfloat16)
    assert str(refused.value) == (f"attention=tokamax cannot run here, because {why}: take attention=auto or blocks")
    on(monkeypatch, "gpu", "NVIDIA H100", "9.0", installed=False)
    why = "tokamax is not installed (pip install 'jaxalign[cuda]')"
    assert choose_attention("auto", ARCHITECTURE, jnp.bfloat16) == ("blocks", why)


def test_a_kernel_for_another_device_is_refused():
    for name, devices in (("splash", "TPUs"), ("tokamax", "A100, H100, H200 and B200")):
        with pytest.raises(UserError, match=f"^attention={name} cannot run here, because {name} is for {devices}, and"):
            choose_attention(name, ARCHITECTURE, jnp.bfloat16)


def main(name: str) -> None:
    """Print as JSON how far two adapters' losses and gradients with a kernel are from ours, on one device and 16."""
    from jax.sharding import AxisType

    from jaxalign.data.packing import stack_batches
    from jaxalign.models.architecture import axis_sizes
    from jaxalign.models.lora import stack_lora
    from jaxalign.models.transformer import Transformer
    from jaxalign.parallel.rules import MESH_AXES, map_adapters, placement_of

    KERNELS["splash"] = Splash(interpret=True)
    random, params = np.random.default_rng(0), random_params(WINDOWED)
    trees = [[random_tree(random, 6, longest=5) for _ in range(6)] for _ in range(2)]
    batches = stack_batches([pack(one, Shape(4, 48, 64)) for one in trees])
    targets = ("q_proj", "v_proj")
    stack = stack_lora([random_adapter(seed, targets=targets, architecture=WINDOWED) for seed in range(2)])

    def compute(shape=None, attention="blocks"):
        placement = None
        if shape is not None:
            mesh = jax.make_mesh(shape, MESH_AXES, (AxisType.Auto,) * 4)
            placement = placement_of(mesh, axis_sizes(WINDOWED))
        model = Transformer(WINDOWED, jnp.float32, "projections", placement, attention)
        one = jax.value_and_grad(lambda adapter, batch: loss(model, params, adapter, batch))
        return jax.jit(jax.vmap(one, spmd_axis_name=map_adapters(placement)))(stack, batches)

    wanted = jax.tree.leaves(jax.tree.map(np.asarray, compute()))

    def apart(*asked):
        leaves = jax.tree.leaves(jax.tree.map(np.asarray, compute(*asked)))
        return max(float(np.abs(a - b).max()) for a, b in zip(leaves, wanted, strict=True))

    print(json.dumps({"one device": apart(None, name), "2 x 2 x 2 x 2 devices": apart((2, 2, 2, 2), name)}))


if __name__ == "__main__":
    main(sys.argv[1])
