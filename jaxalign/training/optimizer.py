"""Optimisers and learning rate schedules, from optax. Every number that a sweep may change is an array."""

from collections.abc import Callable
from typing import no_type_check

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxalign.models.precision import Number


@no_type_check  # JAX also builds it with placeholders for numbers
@flax.struct.dataclass
class Hyperparameters:
    """The numbers of one step. A program takes them as arrays, so other numbers need no other program.

    learning_rate  of this step, from the schedule
    b1, b2, eps    AdamW's moments (Loshchilov and Hutter, 2019, arXiv 1711.05101)
    weight_decay   decoupled, multiplied by the learning rate
    clip           largest norm of the gradient; infinity for none
    scale          alpha / rank of the adapter
    dropout        rate of the dropout on the adapter's input
    beta, label_smoothing, likelihood    of DPO, see `dpo_loss`
    divergence     weight of the divergence from the base, see `train_step`
    """

    learning_rate: Number
    b1: Number = 0.9
    b2: Number = 0.999
    eps: Number = 1e-8
    weight_decay: Number = 0.01
    clip: Number = float("inf")
    scale: Number = 1.0
    dropout: Number = 0.0
    beta: Number = 0.1
    label_smoothing: Number = 0.0
    likelihood: Number = 0.0
    divergence: Number = 0.0


def adamw(hyper: Hyperparameters) -> optax.GradientTransformation:
    """Return AdamW, after a clip of the gradient's global norm. The numbers may be tracers."""
    return optax.chain(
        optax.clip_by_global_norm(hyper.clip),  # type: ignore[arg-type]
        optax.scale_by_adam(hyper.b1, hyper.b2, hyper.eps),  # type: ignore[arg-type]
        optax.add_decayed_weights(hyper.weight_decay),  # type: ignore[arg-type]
        optax.scale(-jnp.asarray(hyper.learning_rate)),  # type: ignore[arg-type]
    )


OPTIMIZERS: dict[str, Callable[[Hyperparameters], optax.GradientTransformation]] = {"adamw": adamw}


def learning_rates(schedule: str, peak: float, warmup: int, steps: int) -> list[float]:
    """Return the learning rate of each of a stage's steps.

    The schedule is `constant`, or a `linear` or `cosine` decay from the peak to 0. With a warm-up the rate first rises
    linearly over `warmup` steps; it is above 0 from the first step on.
    """
    warmup = min(warmup, steps - 1)
    decay_steps = max(steps - warmup, 1)
    decay = {
        "constant": optax.constant_schedule(peak),
        "linear": optax.linear_schedule(peak, 0.0, decay_steps),
        "cosine": optax.cosine_decay_schedule(peak, decay_steps),
    }[schedule]
    if warmup > 0:
        climb = optax.linear_schedule(peak / (warmup + 1), peak, warmup)
        decay = optax.join_schedules([climb, decay], [warmup])
    # One program for the whole stage is much faster than one call for each step.
    return np.asarray(jax.vmap(decay)(jnp.arange(steps))).tolist()
