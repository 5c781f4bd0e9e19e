"""Values and gradients from one program: computed one operation after the other, each has a program of its own."""

from collections.abc import Callable
from typing import Any

import jax


def value_and_vjp(function: Callable, upstream: Any, *arguments: Any) -> tuple[Any, tuple[Any, ...]]:
    """Return the function's value, and the gradients in its arguments that belong to a gradient of its value."""

    @jax.jit
    def both(upstream: Any, *arguments: Any) -> tuple[Any, tuple[Any, ...]]:
        value, pull = jax.vjp(function, *arguments)
        return value, pull(upstream)

    return both(upstream, *arguments)
