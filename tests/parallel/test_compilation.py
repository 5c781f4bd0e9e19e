"""Compiled programs are kept by function and shapes, for all runs of a process."""

import threading
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxalign.parallel import compilation
from jaxalign.parallel.compilation import Programs, forgetting_started


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


def test_a_program_that_was_started_is_waited_for_and_not_compiled_again(monkeypatch):
    compiled, told, once = [], [], compilation._compiled
    monkeypatch.setattr(compilation, "COMPILED", OrderedDict())
    monkeypatch.setattr(compilation, "_compiled", lambda *what: compiled.append(what[0]) or once(*what))
    programs, x = Programs(lambda name, seconds: told.append((name, seconds))), jnp.arange(8.0)
    for _ in range(2):  # asked for twice, it is started once
        programs.start(double, (), (jax.ShapeDtypeStruct((8,), jnp.float32),))
    (started,) = compilation.STARTED.values()
    _, seconds = started.result()
    np.testing.assert_array_equal(programs.get("a", double, (), (x,))(x), 2 * x)
    programs.start(double, (), (x,))
    assert compiled == [double] and not compilation.STARTED
    assert told == [("a", max(seconds, programs.seconds))]


def test_what_fails_in_another_thread_is_raised_where_the_program_is_asked_for():
    @jax.jit
    def broken(x):
        raise ValueError("no such shape")

    programs = Programs()
    programs.start(broken, (), (jnp.arange(3.0),))
    with pytest.raises(ValueError, match="no such shape"):
        programs.get("broken", broken, (), (jnp.arange(3.0),))
    assert not compilation.STARTED


def test_at_the_end_nothing_is_compiled_that_no_thread_has_begun(monkeypatch):
    begun, release, seen = threading.Event(), threading.Event(), []

    def compiled(function, *what):
        seen.append(function)
        begun.set()
        release.wait(10)
        return function, 0.0

    monkeypatch.setattr(compilation, "COMPILED", OrderedDict())
    monkeypatch.setattr(compilation, "_compiled", compiled)
    with ThreadPoolExecutor(1) as one_thread:
        monkeypatch.setattr(compilation, "_threads", lambda: one_thread)
        with forgetting_started():
            for function in (double, triple):
                Programs().start(function, (), (jnp.arange(5.0),))
            assert begun.wait(10)
        release.set()
    assert seen == [double] and not compilation.STARTED
