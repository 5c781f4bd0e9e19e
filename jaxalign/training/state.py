"""The state of training: what a step changes."""

from typing import no_type_check

import flax.struct
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Int, Int32, UInt32

from jaxalign.models.lora import LoraParams
from jaxalign.training.optimizer import OPTIMIZERS, Hyperparameters


@no_type_check  # JAX also builds it with placeholders for arrays
@flax.struct.dataclass
class TrainState:
    """The adapter, the optimiser's state, the number of steps done, and the random key that dropout derives from.

    The frozen base is not a part of it: the base is an argument of the step, and any number of states share it.
    """

    adapter: LoraParams
    opt_state: optax.OptState
    step: Int32[Array, "..."]
    key: UInt32[Array, "... 2"]


def init_state(adapter: LoraParams, seed: int | Int[Array, ""], optimizer: str = "adamw", stage: int = 0) -> TrainState:
    """Return the state before the first step of a stage that starts from `adapter`.

    `stage` is a number that no other stage of the run has, so that each stage draws another dropout.
    """
    key = jax.random.fold_in(jax.random.key(seed), stage)
    opt_state = OPTIMIZERS[optimizer](Hyperparameters(0.0)).init(adapter)  # type: ignore[arg-type]
    return TrainState(adapter, opt_state, jnp.zeros((), jnp.int32), jax.random.key_data(key))
