"""What training changes from step to step."""

import flax.struct
import jax
import jax.numpy as jnp
import optax

from jaxalign.models.lora import LoraParams
from jaxalign.training.optimizer import OPTIMIZERS, Hyperparameters


@flax.struct.dataclass
class TrainState:
    """The adapter, the optimiser's state, the number of steps done (int32) and the key that dropout derives from.

    The frozen base is no part of it: it is an argument of the step, shared by any number of states.
    """

    adapter: LoraParams
    opt_state: optax.OptState
    step: jax.Array
    key: jax.Array


def init_state(adapter: LoraParams, seed: int | jax.Array, optimizer: str = "adamw", stage: int = 0) -> TrainState:
    """Return the state before the first step of a stage that starts from `adapter`.

    `stage` is a number of the stage's own, so that no two stages of a run draw the same dropout.
    """
    key = jax.random.fold_in(jax.random.key(seed), stage)
    opt_state = OPTIMIZERS[optimizer](Hyperparameters(0.0)).init(adapter)  # type: ignore[arg-type]
    return TrainState(adapter, opt_state, jnp.zeros((), jnp.int32), jax.random.key_data(key))
