"""Compiled programs. Each is compiled once, and the time that it takes is logged."""

import dataclasses
import time
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax

from jaxalign.parallel.distributed import several, wait_for_all

KEPT = 256
"""The largest number of compiled programs that a process keeps. Each holds memory, and the oldest one goes first."""

COMPILED: OrderedDict[Any, Any] = OrderedDict()
"""The compiled programs of this process, which all runs of a sweep share."""


@dataclasses.dataclass
class Programs:
    """The compiled programs of a run, by function, shapes and shardings.

    `log(name, seconds)` is called after each compilation. `seconds` is the time of all compilations, and
    `thread_seconds` the processor time of the calling thread in them. A program that an earlier run of this process
    compiled is not compiled again.
    """

    log: Callable[[str, float], None] = lambda name, seconds: None
    compiled: OrderedDict[Any, Any] = dataclasses.field(default_factory=lambda: COMPILED)
    seconds: float = 0.0
    thread_seconds: float = 0.0

    def get(self, name: str, function: Any, static: tuple, arguments: tuple) -> Callable[..., Any]:
        """Return a jitted function compiled for arguments of these shapes. Call it without the `static` arguments.

        The static arguments come first in the function's signature.
        """
        shapes = tuple((leaf.shape, str(leaf.dtype)) for leaf in map(_abstract, jax.tree.leaves(arguments)))
        spread = tuple(map(_spread, jax.tree.leaves(arguments)))
        key = (function, static, shapes, spread, jax.tree.structure(arguments))
        if key in self.compiled:
            self.compiled.move_to_end(key)
            return self.compiled[key]
        start, own = time.perf_counter(), time.thread_time()
        program = self.compiled[key] = function.lower(*static, *arguments).compile()
        wait_for_all()  # on CPUs, a process that has compiled 30 s before the others would not find them
        seconds = time.perf_counter() - start
        self.seconds += seconds
        self.thread_seconds += time.thread_time() - own
        tokens = [shape for shape, dtype in shapes if dtype == "int32" and len(shape) >= 2]
        self.log(f"{name} {'x'.join(map(str, tokens[0]))}" if tokens else name, seconds)
        if len(self.compiled) > KEPT:
            self.compiled.popitem(last=False)
        return program


def _abstract(leaf: Any) -> Any:
    return jax.api_util.shaped_abstractify(leaf)


def _spread(leaf: Any) -> jax.sharding.Sharding | None:
    """Return the sharding of an array on several devices: a program is compiled for it. None for any other value."""
    sharding = leaf.sharding if isinstance(leaf, jax.Array) else None
    return sharding if sharding is not None and len(sharding.device_set) > 1 else None


def use_compilation_cache(folder: Path) -> None:
    """Keep every compiled program in a folder on disk, also those that compile fast, which JAX by default does not.

    Several processes with GPUs keep none: they tune a program together, and wait for one that has it on its disk.
    """
    if several() and jax.default_backend() == "gpu":
        return
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", 0)
