"""What a step of training will hold in a device's memory, before any weight is read."""

from typing import Any

import jax
import numpy as np

from jaxalign.data.placed_batch import on_mesh
from jaxalign.models.lora import LoraParams
from jaxalign.models.transformer import Transformer
from jaxalign.parallel.placing import bytes_of_part
from jaxalign.training.feed import Stage, StageSettings
from jaxalign.training.state import init_state
from jaxalign.training.step import train_program


def step_memory(
    model: Transformer, params: Any, adapter: LoraParams, stage: Stage, settings: StageSettings
) -> tuple[str, dict[str, int]]:
    """Return the rows of a stage's first step, as text, and the bytes on each device by what they hold.

    The step is compiled for the devices at hand, and the compiler counts. `params` may be shapes and types alone
    (`weights.abstract_params`).
    """
    settings = settings.shared_on(model.placement)
    feed = stage.feed(settings)
    batch, _ = feed.batch(feed.steps[0][1])
    hyper = jax.tree.map(np.float32, settings.hyper)
    plain = () if settings.plain is None else (settings.plain.batch(settings.seed, 0),)
    placement, dropout = model.placement, float(settings.hyper.dropout) > 0  # type: ignore[arg-type]
    whole = None if placement is None else placement.sharding()
    state = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=whole),
        jax.eval_shape(lambda: init_state(adapter, 0, settings.optimizer)),
    )
    batches = [on_mesh(placement, one) for one in (batch, *plain)]
    static = (model, settings.optimizer, feed.objective, dropout)
    found: Any = train_program.lower(*static, params, state, hyper, *batches).compile().memory_analysis()
    total = found.argument_size_in_bytes + found.temp_size_in_bytes + found.output_size_in_bytes
    total -= found.alias_size_in_bytes
    base, trained = bytes_of_part(params), bytes_of_part(state)
    parts = {"base": base, "adapter and optimiser": trained, "activations, head and batch": total - base - trained}
    return "x".join(map(str, batches[0].tokens.shape[-2:])), parts
