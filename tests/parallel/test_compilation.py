"""Compiled programs are kept by function and shapes, for all runs of a process."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxalign.parallel import compilation
from jaxalign.parallel.compilation import Programs


@jax.jit
def double(x):
    return 2 * x


@jax.jit
def triple(x):
    return 3 * x


def test_a_later_run_of_the_process_has_the_programs_of_the_one_before_it(monkeypatch):
    compilation.COMPILED.clear()
    told = []
    one, other = (Programs(lambda name, _, run=run: told.append((run, name))) for run in ("one", "other"))
    x = jnp.arange(4.0)
    for programs in (one, other):
        np.testing.assert_array_equal(programs.get("a", double, (), (x,))(x), 2 * x)
        np.testing.assert_array_equal(programs.get("a", triple, (), (x,))(x), 3 * x)  # of the same name and shapes
    assert told == [("one", "a"), ("one", "a")] and one.seconds > other.seconds == 0
    other.get("a", double, (), (x[:2],))
    assert told[2:] == [("other", "a")]

    monkeypatch.setattr(compilation, "KEPT", 3)
    other.get("a", double, (), (x,))  # used again, so it is not the oldest
    other.get("a", double, (), (x[:3],))
    one.get("a", double, (), (x,))
    assert len(told) == 4
    one.get("a", triple, (), (x,))
    assert told[4:] == [("one", "a")]
