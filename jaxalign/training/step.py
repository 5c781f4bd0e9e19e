"""One step of training, as a pure function of its arguments."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, no_type_check

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float32

from jaxalign.data.packing import PackedBatch
from jaxalign.data.placed_batch import on_mesh
from jaxalign.models.lora import effective
from jaxalign.models.transformer import Transformer
from jaxalign.objectives.dpo import LOSSES, dpo_loss
from jaxalign.objectives.forward import batch_log_probs, mean_divergence
from jaxalign.objectives.log_probs import branch_log_probs
from jaxalign.objectives.sft import sft_loss
from jaxalign.parallel.placing import placed
from jaxalign.parallel.rules import constrained
from jaxalign.training.optimizer import OPTIMIZERS, Hyperparameters
from jaxalign.training.state import TrainState


@no_type_check  # JAX also builds it with placeholders for arrays
@flax.struct.dataclass
class Metrics:
    """The metrics of one step.

    loss_sum       summed over the predictions' weights (SFT) or over pairs (DPO)
    loss_count     the weights or pairs; to log a sum, divide it by the count
    gradient_norm  global norm of the mean gradient, before it is clipped
    sums           further sums of the objective, by name
    """

    loss_sum: Float32[Array, "..."]
    loss_count: Float32[Array, "..."]
    gradient_norm: Float32[Array, "..."]
    sums: dict[str, Float32[Array, "..."]]


Losses = tuple[Float32[Array, ""], Float32[Array, ""], dict[str, Float32[Array, ""]]]
"""(sum, count, sums of metrics); to log a sum, divide it by the count."""

Objective = Callable[[Array | np.ndarray, PackedBatch, Hyperparameters], Losses]
"""From the log-probabilities [B, P] of a batch's predictions to the loss."""


def _supervised(log_probs: Float32[Array | np.ndarray, "B P"], batch: PackedBatch, hyper: Hyperparameters) -> Losses:
    return *sft_loss(log_probs, batch.weight), {}


def _preference(
    kind: str, log_probs: Float32[Array | np.ndarray, "B P"], batch: PackedBatch, hyper: Hyperparameters
) -> Losses:
    responses = batch.preferences.reference.shape[0]
    sums = branch_log_probs(log_probs, batch.branch, batch.weight, responses)  # type: ignore[arg-type]
    ones = jnp.ones_like(log_probs)
    lengths = branch_log_probs(ones, batch.branch, batch.weight, responses)  # type: ignore[arg-type]
    return dpo_loss(
        sums,
        lengths,
        batch.preferences,
        hyper.beta,
        kind=kind,
        smoothing=hyper.label_smoothing,
        likelihood=hyper.likelihood,
    )


OBJECTIVES: dict[str, Objective] = {"sft": _supervised, **{kind: partial(_preference, kind) for kind in LOSSES}}
"""The objectives by name: `sft`, and the losses of DPO. A function that is added here is an objective of supervised
examples, which `objective=NAME` selects."""


def objective(
    name: str, log_probs: Float32[Array | np.ndarray, "B P"], batch: PackedBatch, hyper: Hyperparameters
) -> Losses:
    """Return (sum, count, sums of metrics) of one of `OBJECTIVES`, given the log-probabilities [B, P] of a batch."""
    return OBJECTIVES[name](log_probs, batch, hyper)


objective_program = jax.jit(objective, static_argnums=(0,))


def train_step(
    model: Transformer,
    optimizer: str,
    objective_name: str,
    use_dropout: bool,
    params: Any,
    state: TrainState,
    hyper: Hyperparameters,
    batches: PackedBatch,
    texts: PackedBatch | None = None,
) -> tuple[TrainState, Metrics]:
    """Return the state after one step on micro-batches [M, B, ...], and the step's metrics.

    The first four arguments are static. The gradients of the micro-batches are summed, and divided by the sum of their
    counts, so gradient accumulation changes nothing but the memory that is needed. The dropout is a function of (key,
    step, micro-batch, layer). `jax.vmap` may map the function over all but the base; on
    several devices with `spmd_axis_name=map_adapters(placement)`.

    On `texts` [B, ...], the model shall predict what the base predicts: `hyper.divergence` times the mean divergence
    (`mean_divergence`) is added to the mean loss. It stands outside of the micro-batches, so it does not
    depend on them. The metrics then have it as `divergence`.
    """
    key = jax.random.fold_in(jax.random.wrap_key_data(state.key), state.step)

    def loss(adapter, batch, index):
        dropout = (jax.random.fold_in(key, index), jnp.asarray(hyper.dropout)) if use_dropout else None
        log_probs = batch_log_probs(model, params, effective(adapter, hyper.scale), batch, dropout)
        value, *rest = objective(objective_name, log_probs, batch, hyper)
        return value, tuple(rest)

    def one(item):
        return jax.value_and_grad(loss, has_aux=True)(state.adapter, *item)

    items = (batches, jnp.arange(batches.tokens.shape[0]))
    first = jax.tree.map(lambda leaf: leaf[0], batches)
    # The shapes of the objective alone: those of `one` would trace the whole model a second time.
    value, *rest = jax.eval_shape(partial(objective, objective_name), first.weight, first, hyper)
    start = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), ((value, tuple(rest)), state.adapter))
    summed, _ = jax.lax.scan(lambda carry, item: (jax.tree.map(jnp.add, carry, one(item)), None), start, items)
    (value, (count, sums)), gradient = summed
    gradient = jax.tree.map(lambda g: g / jnp.maximum(count, 1e-9), gradient)
    if texts is not None:

        def divergence(adapter):
            dropout = (jax.random.fold_in(key, batches.tokens.shape[0]), jnp.asarray(hyper.dropout))
            return mean_divergence(
                model, params, effective(adapter, hyper.scale), texts, dropout if use_dropout else None
            )

        mean, pull = jax.value_and_grad(divergence)(state.adapter)
        gradient = jax.tree.map(lambda g, more: g + hyper.divergence * more, gradient, pull)
        sums = {**sums, "divergence": mean * count}
    updates, opt_state = OPTIMIZERS[optimizer](hyper).update(gradient, state.opt_state, state.adapter)
    adapter = optax.apply_updates(state.adapter, updates)
    metrics = Metrics(value, count, optax.tree.norm(gradient), sums)
    new = TrainState(adapter, opt_state, state.step + 1, state.key)  # type: ignore[arg-type]
    # Laid out as it came in: whole on every device, because the next step's program is compiled for that.
    return constrained(model.placement, (new, metrics))


train_program = jax.jit(train_step, static_argnums=(0, 1, 2, 3), donate_argnums=(5,))
"""`train_step`, jitted. The old state is donated: its memory becomes the new state's."""


def step_batches(
    model: Transformer, batches: Sequence[PackedBatch], put: Callable[..., Any] = placed
) -> list[PackedBatch]:
    """Return the batches of a step as its program takes them: on the mesh, and for a kernel without lists of blocks.

    Kernels do not read the lists, and batches whose lists differ in length would each need a program. With
    `put=described`, the result is shapes and types alone.
    """
    if model.attention != "blocks":
        batches = [batch.replace(blocks=batch.blocks[..., :0]) for batch in batches]  # type: ignore[attr-defined]
    return [on_mesh(model.placement, batch, put=put) for batch in batches]
