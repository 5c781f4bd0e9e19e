"""The tests' shorter way to lower (`jax_once`) gives what JAX's own gives."""

import jax
import jax.numpy as jnp
import jax_once
from jax._src.interpreters import mlir


def lowered(n: int) -> str:
    def product(x):
        return jnp.tanh(x @ jnp.arange(float(n))) + jax.random.normal(jax.random.key(n), (n,))

    return jax.jit(product).lower(jnp.eye(n)).as_text()


def test_programs_that_share_a_context_are_those_with_one_of_their_own(monkeypatch):
    monkeypatch.setattr(mlir, "make_ir_context", mlir.make_ir_context)  # what `install` sets, ends with the test
    jax_once.install()
    shared = [lowered(n) for n in (2, 3, 4)]
    assert mlir.make_ir_context() is mlir.make_ir_context()
    monkeypatch.setattr(mlir, "make_ir_context", jax_once.make_anew)
    assert shared == [lowered(n) for n in (2, 3, 4)]


def test_a_context_is_given_up_before_it_holds_the_constants_of_a_whole_session(monkeypatch):
    made = []
    monkeypatch.setattr(mlir, "make_ir_context", mlir.make_ir_context)
    monkeypatch.setattr(jax_once, "make_anew", lambda: made.append(object()) or made[-1])
    jax_once.install()
    given = [mlir.make_ir_context() for _ in range(2 * jax_once.PROGRAMS + 1)]
    assert given[0] is given[jax_once.PROGRAMS - 1] is made[0] and given[-1] is made[2] and len(made) == 3
