"""Compiled programs. Each is compiled once, and the time that it takes is logged."""

import dataclasses
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax


@dataclasses.dataclass
class Programs:
    """The compiled programs of a run, by name and shapes. `log(name, seconds)` is called after each compilation.

    `seconds` is the time of all compilations, and `thread_seconds` the processor time of the calling thread in them.
    """

    log: Callable[[str, float], None] = lambda name, seconds: None
    compiled: dict[Any, Any] = dataclasses.field(default_factory=dict)
    seconds: float = 0.0
    thread_seconds: float = 0.0

    def get(self, name: str, function: Any, static: tuple, arguments: tuple) -> Callable[..., Any]:
        """Return a jitted function compiled for arguments of these shapes. Call it without the `static` arguments.

        The static arguments come first in the function's signature.
        """
        shapes = tuple((leaf.shape, str(leaf.dtype)) for leaf in map(_abstract, jax.tree.leaves(arguments)))
        key = (name, static, shapes, jax.tree.structure(arguments))
        if key not in self.compiled:
            start, own = time.perf_counter(), time.thread_time()
            self.compiled[key] = function.lower(*static, *arguments).compile()
            seconds = time.perf_counter() - start
            self.seconds += seconds
            self.thread_seconds += time.thread_time() - own
            tokens = [shape for shape, dtype in shapes if dtype == "int32" and len(shape) >= 2]
            self.log(f"{name} {'x'.join(map(str, tokens[0]))}" if tokens else name, seconds)
        return self.compiled[key]


def _abstract(leaf: Any) -> Any:
    return jax.api_util.shaped_abstractify(leaf)


def use_compilation_cache(folder: Path) -> None:
    """Keep every compiled program in a folder on disk, also those that compile fast, which JAX by default does not."""
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", 0)
