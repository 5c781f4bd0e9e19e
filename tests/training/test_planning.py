"""A plan says what a device will hold: what the compiler counts, by what it is for."""

import few_examples
import jax
import jax.numpy as jnp
import pytest
from tiny_model import ARCHITECTURE, MODEL, random_adapter

from jaxalign.parallel.placing import bytes_of_part
from jaxalign.pretrained.weights import abstract_params
from jaxalign.training.planning import bytes_of_program, planned_step


@pytest.fixture(scope="module")
def step():
    adapter = jax.eval_shape(lambda: random_adapter(0))
    return planned_step(
        MODEL, abstract_params(ARCHITECTURE, jnp.float32, None), adapter, few_examples.STAGE, few_examples.SETTINGS
    )


def test_the_parts_of_a_plan_are_what_the_compiler_counts(step):
    program = step.program.compile()
    parts, whole = step.memory(program), bytes_of_program(program)
    assert list(parts) == ["base", "adapter", "optimiser", "batch", "head", "activations"]
    assert sum(parts.values()) == whole
    assert parts["base"] == 4 * (97 * 32 + 2 * (32 * 64 + 2 * 32 * 16 + 3 * 32 * 48 + 64) + 32)
    assert parts["adapter"] == bytes_of_part(step.state.adapter)
    assert 2 * parts["adapter"] <= parts["optimiser"] <= 2 * parts["adapter"] + 64  # two moments, and counts
    rows, tokens = step.batches[0].tokens.shape[1:]
    assert step.rows == f"{rows}x{tokens}"
    predictions = rows * step.batches[0].target.shape[2]
    assert min(predictions, 128) * 97 * 4 <= parts["head"] <= whole / 2
