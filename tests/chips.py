"""Chips that are not here: what is compiled for them is what would run there, but nothing can be run.

This needs the packages of the extra `aot`. See https://docs.jax.dev/en/latest/aot.html.
"""

import importlib.util
import os
from functools import cache
from pathlib import Path
from typing import Any

import jax
import pytest

MEMORY = {"v5e": 16e9, "v6e": 32e9, "h100": 80e9}
"""The bytes that a chip has."""

# The numbers of an H100 SXM5, from NVIDIA's description of the architecture and CUDA's table of compute capability 9.0.
H100 = """
gpu_device_info {
  cuda_compute_capability { major: 9 minor: 0 }
  device_memory_size: 80000000000
  memory_bandwidth: 3350000000000
  l2_cache_size: 52428800
  clock_rate_ghz: 1.98
  core_count: 132
  fpus_per_core: 128
  threads_per_warp: 32
  threads_per_block_limit: 1024
  threads_per_core_limit: 2048
  registers_per_block_limit: 65536
  registers_per_core_limit: 65536
  shared_memory_per_block: 49152
  shared_memory_per_block_optin: 232448
  shared_memory_per_core: 233472
  block_dim_limit_x: 2147483647
  block_dim_limit_y: 65535
  block_dim_limit_z: 65535
}
platform_name: "CUDA"
runtime_version { major: 12 minor: 8 }
dnn_version_info { major: 9 minor: 8 }
device_description_str: "NVIDIA H100 80GB HBM3"
"""


@cache
def chips(name: str) -> list[Any]:
    """Return the devices of a machine: h100, or a TPU slice such as v5e:1x1 and v6e:2x2.

    The test is skipped where the compiler for them is not installed.
    """
    from jax.experimental import topologies

    needed = "jax_cuda12_plugin" if name == "h100" else "libtpu"
    if importlib.util.find_spec(needed) is None:
        pytest.skip(f"{needed} is not installed: pip install '.[aot]'")
    if name == "h100":
        _register_cuda()
        return topologies.get_topology_desc("", "cuda", topology="1x1x1", target_config=H100).devices
    # Nothing is asked of Google's metadata server, and another process may use the library, too.
    os.environ |= {"TPU_SKIP_MDS_QUERY": "1", "ALLOW_MULTIPLE_LIBTPU_LOAD": "1"}
    one = {"chips_per_host_bounds": (1, 1, 1)} if name.endswith(":1x1") else {}
    return topologies.get_topology_desc(name, "tpu", **one).devices


def _register_cuda() -> None:
    """Make the compiler for GPUs known to JAX, which by itself takes it only where there is a driver."""
    from jax._src import xla_bridge
    from jax_plugins import xla_cuda12

    (library,) = Path(xla_cuda12.__file__).parent.glob("*.so")
    xla_bridge.register_plugin("cuda", library_path=str(library))


def platform_of(name: str) -> str:
    """Return what `jax.default_backend()` says on a machine."""
    return "gpu" if name == "h100" else "tpu"


def on_chip(tree: Any, chip: Any) -> Any:
    """Return shapes and types on one chip."""
    sharding = jax.sharding.SingleDeviceSharding(chip)
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), tree)
