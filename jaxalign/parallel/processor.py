"""The devices at hand, JAX's settings, and what the processor multiplies fast."""

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax

from jaxalign.errors import UserError

BF16_INSTRUCTIONS = frozenset({"avx512_bf16", "amx_bf16"})
"""The instructions of x86 processors that multiply bfloat16, as Linux names them."""

XLA_WITHOUT_BF16 = frozenset({"SSE4_2", "AVX", "AVX2", "AVX512", "AVX512_VNNI"})
"""The values of XLA's flag xla_cpu_max_isa that keep it from using these instructions."""


def cpu_instructions(path: Path = Path("/proc/cpuinfo")) -> frozenset[str]:
    """Return the names of the CPU's instruction sets, as Linux lists them; none where there is no such list."""
    try:
        found = re.search(r"^(?:flags|Features)\s*:(.*)$", path.read_text(), re.MULTILINE)
    except OSError:
        return frozenset()
    return frozenset(found[1].split()) if found else frozenset()


SETTINGS: Mapping[str, Any] = {
    "jax_threefry_partitionable": True,
    "jax_default_prng_impl": "threefry2x32",
    "jax_random_seed_offset": 0,
    "jax_enable_x64": False,
    "jax_default_matmul_precision": None,
    "jax_numpy_dtype_promotion": "standard",
    "jax_numpy_rank_promotion": "allow",
    "jax_disable_jit": False,
    "jax_transfer_guard": None,
}
"""The values of JAX's own settings with which jaxalign computes, which are its defaults. With others, results differ
under the same name, or programs cannot be compiled."""


def check_settings() -> None:
    """Raise UserError if a setting of JAX, from the environment or from a program's own lines, is not as `SETTINGS`."""
    for name, wanted in SETTINGS.items():
        found = getattr(jax.config, name, wanted)  # a later JAX may have no such setting
        found = getattr(found, "value", found)
        if found != wanted and not (name == "jax_transfer_guard" and found == "allow"):
            raise UserError(
                f"JAX's setting {name} is {found}, and jaxalign computes with {wanted}: unset {name.upper()} in the "
                "environment, or leave the setting as it is in your own program"
            )


def available_devices() -> list[Any]:
    """Return the devices.

    Raises:
        UserError: there are none of the kind that JAX_PLATFORMS names, or they cannot be used; or see `check_settings`.
    """
    check_settings()
    try:
        return jax.devices()
    except RuntimeError as error:
        raise UserError(f"JAX finds no device that it can use: {error}") from error


def fast_precision() -> tuple[str, str]:
    """Return the number format whose matrix products are fast here, bfloat16 or float32, and the reason in words.

    A CPU without instructions for bfloat16 converts every operand first: two cores with AVX2 alone multiply bfloat16 at
    0.6 times the speed of float32. CPUs that are not known to have them count as such. GPUs have them from compute
    capability 8.0 (Ampere) on, and all TPUs do.
    """
    device = available_devices()[0]
    if device.platform == "gpu":
        capability = compute_capability(device)
        return _choice(capability is None or capability >= 8, device.device_kind)
    if device.platform != "cpu":
        return _choice(True, device.device_kind)
    limit = re.findall(r"--xla_cpu_max_isa=(\w+)", os.environ.get("XLA_FLAGS", ""))
    if limit and limit[-1].upper() in XLA_WITHOUT_BF16:
        return _choice(False, f"a CPU held to {limit[-1]} by XLA_FLAGS")
    return _choice(bool(cpu_instructions() & BF16_INSTRUCTIONS), "this CPU")


def compute_capability(device: Any) -> float | None:
    """Return the compute capability of an NVIDIA GPU, such as 9.0 for an H100; None for any other device."""
    named = str(getattr(device, "compute_capability", "0")) if device.platform == "gpu" else ""
    return float(named) if re.fullmatch(r"\d+(\.\d+)?", named) else None  # AMD's GPUs give a name


def on_cpu() -> bool:
    """Return whether programs are compiled for a CPU, whose best sizes are others than those of a GPU or TPU."""
    return jax.default_backend() == "cpu"


def on_tpu() -> bool:
    """Return whether programs are compiled for TPUs."""
    return jax.default_backend() == "tpu"


def _choice(fast: bool, device: str) -> tuple[str, str]:
    return ("bfloat16", f"{device} multiplies it fast") if fast else ("float32", f"{device} multiplies bfloat16 slowly")
