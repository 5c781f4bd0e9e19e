"""Which number format is fast is read from the processor's instructions."""

import jax
import pytest

from jaxalign.errors import UserError
from jaxalign.parallel import processor
from jaxalign.parallel.distributed import check_joined
from jaxalign.parallel.processor import available_devices, check_settings, cpu_instructions, fast_precision


@pytest.mark.parametrize(
    ("instructions", "flags", "expected"),
    [
        ({"avx2", "fma"}, "", "float32"),
        ({"avx2", "avx512f", "avx512_vnni"}, "", "float32"),
        ({"avx2", "avx512f", "avx512_bf16"}, "", "bfloat16"),
        ({"avx2", "amx_bf16"}, "--xla_cpu_max_isa=AMX", "bfloat16"),
        ({"avx2", "avx512_bf16"}, "--xla_dump_to=/tmp --xla_cpu_max_isa=avx2", "float32"),
        (set(), "", "float32"),
    ],
)
def test_a_cpu_computes_in_bfloat16_only_where_it_is_known_to_have_instructions_for_it(
    instructions, flags, expected, monkeypatch
):
    monkeypatch.setattr(processor, "cpu_instructions", lambda: frozenset(instructions))
    monkeypatch.setenv("XLA_FLAGS", flags)
    assert fast_precision()[0] == expected


@pytest.mark.parametrize(
    ("platform", "capability", "expected"),
    [
        ("tpu", None, "bfloat16"),
        ("gpu", "9.0", "bfloat16"),
        ("gpu", "7.5", "float32"),
        ("gpu", "gfx90a", "bfloat16"),
    ],
)
def test_an_accelerator_computes_in_bfloat16_but_for_gpus_without_it(platform, capability, expected, monkeypatch):
    device = type("Device", (), {"platform": platform, "device_kind": "a device", "compute_capability": capability})()
    monkeypatch.setattr(processor.jax, "devices", lambda: [device])
    assert fast_precision()[0] == expected


def test_instructions_are_read_from_linux_s_list(tmp_path):
    path = tmp_path / "cpuinfo"
    path.write_text("processor\t: 0\nmodel name\t: A\nflags\t\t: fpu avx2 avx512_bf16\nbugs\t: x\n")
    assert cpu_instructions(path) == {"fpu", "avx2", "avx512_bf16"}
    path.write_text("processor\t: 0\nFeatures\t: fp asimd bf16\n")
    assert cpu_instructions(path) == {"fp", "asimd", "bf16"}
    assert cpu_instructions(tmp_path / "nothing") == frozenset()


@pytest.mark.parametrize("ask", [fast_precision, check_joined])
def test_a_platform_that_is_not_there_is_one_line(monkeypatch, ask):
    def devices():
        raise RuntimeError("Unable to initialize backend 'cuda': no such device\n(set JAX_PLATFORMS='' to choose one)")

    monkeypatch.setattr(processor.jax, "devices", devices)
    with pytest.raises(UserError, match="JAX finds no device that it can use: Unable to initialize backend 'cuda'"):
        ask()


@pytest.mark.parametrize(
    ("name", "other"),
    [
        ("threefry_partitionable", False),
        ("default_prng_impl", "rbg"),
        ("random_seed_offset", 7),
        ("enable_x64", True),
        ("default_matmul_precision", "bfloat16"),
        ("numpy_dtype_promotion", "strict"),
        ("numpy_rank_promotion", "raise"),
        ("disable_jit", True),
        ("transfer_guard", "disallow"),
    ],
)
def test_a_setting_of_jax_that_changes_results_or_cannot_be_compiled_with_is_refused(name, other):
    check_settings()
    before = getattr(jax.config, f"jax_{name}")
    jax.config.update(f"jax_{name}", other)
    try:
        with pytest.raises(UserError, match=f"jax_{name} is {other}, .*: unset JAX_{name.upper()} in the environment"):
            available_devices()
    finally:
        jax.config.update(f"jax_{name}", getattr(before, "value", before))
    check_settings()
