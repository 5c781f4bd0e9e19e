"""Compiled programs. Each is compiled once, and the time that it takes is logged."""

import contextlib
import dataclasses
import os
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any

import jax

from jaxalign.parallel.distributed import several, wait_for_all

KEPT = 256
"""The largest number of compiled programs that a process keeps. Each holds memory, and the oldest one goes first."""

COMPILED: OrderedDict[Any, Any] = OrderedDict()
"""The compiled programs of this process, which all runs of a sweep share."""


STARTED: dict[Any, Future[tuple[Any, float]]] = {}
"""The programs that threads of this process compile, or have compiled, and nobody has asked for; with the seconds."""


@dataclasses.dataclass
class Programs:
    """The compiled programs of a run, by function, shapes and shardings.

    `log(name, seconds)` is called with the time of each compilation. `seconds` is the time that the run has waited for
    all of them, and `thread_seconds` the processor time of the calling thread in it. A program that an earlier run of
    this process compiled is not compiled again.
    """

    log: Callable[[str, float], None] = lambda name, seconds: None
    compiled: OrderedDict[Any, Any] = dataclasses.field(default_factory=lambda: COMPILED)
    seconds: float = 0.0
    thread_seconds: float = 0.0

    def get(self, name: str, function: Any, static: tuple, arguments: tuple) -> Callable[..., Any]:
        """Return a jitted function compiled for arguments of these shapes. Call it without the `static` arguments.

        The static arguments come first in the function's signature.
        """
        key = _key(function, static, arguments)
        if key in self.compiled:
            self.compiled.move_to_end(key)
            return self.compiled[key]
        start, own = time.perf_counter(), time.thread_time()
        started = STARTED.pop(key, None)
        program, seconds = _compiled(function, static, arguments) if started is None else started.result()
        self.compiled[key] = program
        wait_for_all()  # on CPUs, a process that has compiled 30 s before the others would not find them
        waited = time.perf_counter() - start
        self.seconds += waited
        self.thread_seconds += time.thread_time() - own
        _, _, shapes, *_ = key
        tokens = [shape for shape, dtype in shapes if dtype == "int32" and len(shape) >= 2]
        self.log(f"{name} {'x'.join(map(str, tokens[0]))}" if tokens else name, max(seconds, waited))
        if len(self.compiled) > KEPT:
            self.compiled.popitem(last=False)
        return program

    def start(self, function: Any, static: tuple, arguments: tuple) -> None:
        """Begin to compile what `get` will be asked for, in another thread. Arguments may be shapes and types alone.

        Several processes compile nothing ahead: those with GPUs tune each program together, in one order.
        """
        key = _key(function, static, arguments)
        if not (several() or key in self.compiled or key in STARTED):
            # Arrays may be changed meanwhile: a sampler has the weights of the base in another layout.
            shapes = jax.tree.map(_described, arguments)
            STARTED[key] = _threads().submit(_compiled, function, static, shapes)


@contextlib.contextmanager
def forgetting_started() -> Iterator[None]:
    """Forget at the end what was started and nobody asked for. Of it, threads compile only what they have begun.

    Otherwise a process that is interrupted would compile all of it before it ends.
    """
    try:
        yield
    finally:
        for program in STARTED.values():
            program.cancel()
        STARTED.clear()


@cache
def _threads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(min(os.cpu_count() or 1, 8), "compilation")


def _compiled(function: Any, static: tuple, arguments: tuple) -> tuple[Any, float]:
    """Return a compiled function, and the seconds that its compilation took."""
    start = time.perf_counter()
    program = function.lower(*static, *arguments).compile()
    return program, time.perf_counter() - start


def _key(function: Any, static: tuple, arguments: tuple) -> tuple[Any, ...]:
    leaves = jax.tree.leaves(arguments)
    shapes = tuple((leaf.shape, str(leaf.dtype)) for leaf in map(_abstract, leaves))
    return function, static, shapes, tuple(map(_spread, leaves)), jax.tree.structure(arguments)


def _abstract(leaf: Any) -> Any:
    return leaf if isinstance(leaf, jax.ShapeDtypeStruct) else jax.api_util.shaped_abstractify(leaf)


def _described(leaf: Any) -> jax.ShapeDtypeStruct:
    abstract = _abstract(leaf)
    return jax.ShapeDtypeStruct(abstract.shape, abstract.dtype, sharding=_spread(leaf))


def _spread(leaf: Any) -> jax.sharding.Sharding | None:
    """Return the sharding of an array on several devices: a program is compiled for it. None for any other value."""
    sharding = leaf.sharding if isinstance(leaf, jax.Array | jax.ShapeDtypeStruct) else None
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
