"""The shapes in signatures are checked while tests run: `--jaxtyping-packages` in pyproject.toml."""

from functools import partial
from inspect import get_annotations
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from beartype.door import is_bearable
from jaxtyping import TypeCheckError, jaxtyped
from tiny_model import MODEL, apart, random_adapter, random_params, some_examples

from jaxalign.data.packing import Shape, pack, stack_batches
from jaxalign.inference.multiple_choice import probabilities
from jaxalign.models.attention import rotate
from jaxalign.objectives.dpo import Preferences
from jaxalign.objectives.sft import sft_loss
from jaxalign.training.optimizer import Hyperparameters
from jaxalign.training.state import init_state
from jaxalign.training.step import objective, train_step

BATCH = pack(apart(*some_examples()), Shape(2, 96, 48))


@pytest.mark.parametrize(
    "call",
    [
        pytest.param(lambda: rotate(jnp.ones((1, 4, 2, 8)), jnp.ones((1, 5, 4)), jnp.ones((1, 5, 4))), id="models"),
        pytest.param(lambda: sft_loss(jnp.ones((2, 3)), jnp.ones((3, 2))), id="objectives"),
        pytest.param(lambda: objective("sft", jnp.ones(3), BATCH, Hyperparameters(1e-3)), id="training"),
        pytest.param(lambda: probabilities([0.0]), id="inference"),  # type: ignore[arg-type]
    ],
)
def test_in_every_checked_package_a_wrong_argument_is_refused(call):
    with pytest.raises(TypeCheckError):
        call()


def test_a_wrong_type_of_number_is_refused():
    with pytest.raises(TypeCheckError):
        sft_loss(jnp.ones((2, 3), jnp.bfloat16), jnp.ones((2, 3)))


def fields_fit(value: Any) -> bool:
    """Return whether the fields have their annotated types and shapes, with one size for each dimension's name."""
    hints = {name: hint for name, hint in get_annotations(type(value)).items() if name != "opt_state"}  # optax's
    assert hints
    with jaxtyped("context"):
        return all(is_bearable(getattr(value, name), hint) for name, hint in hints.items())


def test_batches_have_the_shapes_that_their_fields_say():
    assert fields_fit(BATCH)
    assert fields_fit(stack_batches([BATCH, BATCH]))
    assert fields_fit(jax.tree.map(jnp.asarray, BATCH))
    assert not fields_fit(BATCH.replace(source=BATCH.source[:, 1:]))
    assert not fields_fit(BATCH.replace(weight=BATCH.weight.astype(np.float64)))
    pairs = Preferences(np.zeros((3, 2), np.int32), np.ones(3, np.float32), np.zeros(4, np.float32))
    assert fields_fit(pairs)
    assert not fields_fit(pairs._replace(weight=np.ones(2, np.float32)))


@pytest.mark.slow
def test_states_and_metrics_have_the_shapes_that_their_fields_say():
    state, hyper = init_state(random_adapter(), 0), Hyperparameters(1e-3)
    assert fields_fit(state)
    assert fields_fit(hyper)
    assert not fields_fit(hyper.replace(clip=np.ones(2)))
    step = partial(train_step, MODEL, "adamw", "sft", False)
    returned = jax.eval_shape(step, random_params(), state, hyper, stack_batches([BATCH]))
    new, metrics = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), returned)
    assert fields_fit(new)
    assert not fields_fit(new.replace(step=0))
    assert fields_fit(metrics)
    assert not fields_fit(metrics.replace(sums={"x": 1.0}))
