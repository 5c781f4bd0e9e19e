"""The processor that a benchmark ran on, which its ratios depend on."""

import os
import platform


def processor() -> str:
    """Return the number of cores and the instruction sets that decide how fast matrix products are."""
    from jaxalign.parallel.processor import cpu_instructions

    notable = ("avx2", "avx512f", "avx512_bf16", "amx_bf16", "asimd", "sve", "bf16")
    found = [name for name in notable if name in cpu_instructions()]
    limiting = ("XLA_FLAGS", "ONEDNN_MAX_CPU_ISA", "ATEN_CPU_CAPABILITY", "MKL_ENABLE_INSTRUCTIONS")
    flags = " ".join(f"{name}={os.environ[name]}" for name in limiting if os.environ.get(name))
    limits = f" ({flags})" if flags else ""
    return f"{os.cpu_count()} cores, {' '.join(found) or platform.machine()}{limits}"
