"""The training steps of jaxalign, timed without their compilation."""

import time
from typing import Any

import jax
import numpy as np

from jaxalign.models.transformer import Transformer
from jaxalign.parallel.compilation import Programs
from jaxalign.training.feed import Feed
from jaxalign.training.optimizer import Hyperparameters
from jaxalign.training.state import TrainState
from jaxalign.training.step import train_program


def timed_steps(
    feed: Feed, network: Transformer, params: Any, state: TrainState, hyper: Hyperparameters, programs: Programs
) -> tuple[float, float]:
    """Train all steps of a feed; return the seconds of all but the first, which warms up, and the first loss."""
    numbers, losses, start, compiled = jax.tree.map(np.float32, hyper), [], 0.0, 0.0
    static = (network, "adamw", feed.objective, float(np.asarray(hyper.dropout)) > 0)
    for number, (_, members) in enumerate(feed.steps):
        if number == 1:
            jax.block_until_ready(state)
            start, compiled = time.perf_counter(), programs.seconds
        batch, _ = feed.batch(members)
        arguments = (params, state, numbers, batch)
        state, metrics = programs.get("train step", train_program, static, arguments)(*arguments)
        losses.append(metrics)
    jax.block_until_ready(state)
    first = jax.device_get(losses[0])
    seconds = time.perf_counter() - start - (programs.seconds - compiled)
    return seconds, float(first.loss_sum / first.loss_count)
