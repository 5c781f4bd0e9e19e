import jax
import numpy as np
import pytest
from tiny_model import MODEL, random_tokens

from jaxalign.parallel.compilation import Programs
from jaxalign.training.base_states import BaseReader
from jaxalign.training.regularising_texts import RegularisingTexts


def a_reader(params, programs, tokens=32):
    kinds = [[random_tokens(np.random.default_rng([seed, n]), 5, 12) for n in range(20)] for seed in range(2)]
    return BaseReader(MODEL, params, RegularisingTexts(kinds, kinds, tokens), 0, programs)


@pytest.mark.slow
def test_a_step_gets_the_same_states_wherever_a_run_begins(params, programs):
    unbroken = a_reader(params, programs)
    expected = {step: unbroken.of_step(step) for step in range(10)}
    for step in (3, 7, 8):
        found = a_reader(params, programs).of_step(step)
        jax.tree.map(np.testing.assert_array_equal, found, expected[step])
        assert int(found[2]) == step % 8


def test_a_step_is_planned_as_it_will_be(params, programs):
    reader = a_reader(params, programs)
    shapes = [jax.tree.map(lambda x: (x.shape, x.dtype), one) for one in (reader.planned(), reader.of_step(0))]
    assert shapes[0] == shapes[1]


def test_long_texts_are_read_with_fewer_steps_together():
    assert [a_reader(None, Programs(), tokens).together for tokens in (32, 256, 1024, 8192)] == [8, 8, 2, 1]
