"""JAX, but what it makes anew for each program is made once for many: that took a quarter of what small models take."""

import itertools
import zlib
from types import SimpleNamespace
from typing import Any

from jax._src import compilation_cache
from jax._src.interpreters import mlir

PROGRAMS = 200
"""How many programs share a context, which keeps their constants."""

make_anew = mlir.make_ir_context
"""JAX's own function that makes a context of MLIR, with all its dialects."""


def install() -> None:
    """Let this process lower and keep its programs this way."""
    numbers, kept = itertools.count(), []

    def shared() -> Any:
        if next(numbers) % PROGRAMS == 0:
            kept[:] = [make_anew()]
        return kept[0]

    mlir.make_ir_context = shared
    # What a session keeps, it deletes at its end: compressed in half the time, it is a tenth larger.
    compilation_cache.zlib = SimpleNamespace(compress=lambda data: zlib.compress(data, 1), decompress=zlib.decompress)
