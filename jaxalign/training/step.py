"""One step of training, as a pure function of its arguments."""

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any, no_type_check

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Float32, Int32

from jaxalign.data.joined_rows import joined
from jaxalign.data.packing import PackedBatch
from jaxalign.data.placed_batch import on_mesh
from jaxalign.models.lora import effective
from jaxalign.models.transformer import Transformer
from jaxalign.objectives.dpo import LOSSES, dpo_loss
from jaxalign.objectives.forward import batch_states, mean_divergence, predicted_log_probs
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

HeldTexts = tuple[PackedBatch, Float[Array, "C P D"], Int32[Array | np.ndarray, ""]]
"""What holds a step near the base: its texts [B, ...], the base's states that predict the texts of a group of steps, of
which there are at most C, and the step's place in the group. Only the first of the B rows has texts; the others fill up
a mesh."""

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


@no_type_check  # its methods are traced with placeholders for arrays
@dataclasses.dataclass(frozen=True)
class _Gradients:
    """The losses of a step, and their gradient in the adapter: (sum, count, sums of metrics, gradient of the mean).

    `key` is the step's, for dropout; None means none.
    """

    model: Transformer
    params: Any
    objective_name: str
    hyper: Hyperparameters
    key: Any

    def states(self, adapter, batch, number):
        """Return the states of a batch [B, ...]; its `number` in the step is for dropout."""
        dropout = None if self.key is None else (jax.random.fold_in(self.key, number), jnp.asarray(self.hyper.dropout))
        return batch_states(self.model, self.params, effective(adapter, self.hyper.scale), batch, dropout)

    def losses(self, states, batch):
        """Return (sum, count, sums of metrics) of a batch."""
        log_probs = predicted_log_probs(self.model, self.params, states, batch)
        return objective(self.objective_name, log_probs, batch, self.hyper)

    def divergence(self, states, texts, together, turn):
        """Return the mean divergence on texts, given their states and the rest of `HeldTexts`."""
        own = jax.lax.dynamic_slice_in_dim(together, turn, 1)
        own = jnp.broadcast_to(own, (len(texts.tokens), *own.shape[1:]))
        return mean_divergence(self.model, self.params, states, texts, constrained(self.model.placement, own, "rows"))

    def of_micro_batches(self, adapter, batches):
        """Return the losses and the gradient of micro-batches, one after another."""

        def one(item):
            def loss(adapter):
                value, *rest = self.losses(self.states(adapter, *item), item[0])
                return value, tuple(rest)

            return jax.value_and_grad(loss, has_aux=True)(adapter)

        # The shapes of the objective alone: those of `one` would trace the whole model a second time.
        first = jax.tree.map(lambda leaf: leaf[0], batches)
        value, *rest = jax.eval_shape(partial(objective, self.objective_name), first.weight, first, self.hyper)
        start = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), ((value, tuple(rest)), adapter))
        items = (batches, jnp.arange(len(batches.tokens)))
        summed, _ = jax.lax.scan(lambda carry, item: (jax.tree.map(jnp.add, carry, one(item)), None), start, items)
        (value, (count, sums)), gradient = summed
        return value, count, sums, jax.tree.map(lambda g: g / jnp.maximum(count, 1e-9), gradient)

    def with_texts(self, adapter, found, number, texts, *base):
        """Return what was `found` with the divergence on texts added, which are read in a pass of their own."""
        value, count, sums, gradient = found

        def divergence(adapter):
            return self.divergence(self.states(adapter, texts, number), texts, *base)

        mean, pull = jax.value_and_grad(divergence)(adapter)
        gradient = jax.tree.map(lambda g, more: g + self.hyper.divergence * more, gradient, pull)
        return value, count, {**sums, "divergence": mean * count}, gradient

    def of_one_row(self, adapter, batches, texts, *base):
        """Return the losses and the gradient of a single row and the texts before it, in one pass."""
        row = joined(texts, jax.tree.map(lambda leaf: leaf[0], batches))

        def total(adapter):
            states = self.states(adapter, row, 0)
            value, count, sums = self.losses(states, row)
            mean = self.divergence(states, texts, *base)
            found = value, count, {**sums, "divergence": mean * count}
            return value / jnp.maximum(count, 1e-9) + self.hyper.divergence * mean, found

        (_, found), gradient = jax.value_and_grad(total, has_aux=True)(adapter)
        return *found, gradient


def _fit_into_one_row(model: Transformer, batches: PackedBatch, texts: PackedBatch) -> bool:
    """Return whether a step reads its batch and its texts in one pass.

    Then each weight is read once, and products of many tokens are faster. Kernels want rows in multiples of 128 tokens.
    """
    return model.attention == "blocks" and batches.tokens.shape[:2] == (1, 1) and len(texts.tokens) == 1


def train_step(
    model: Transformer,
    optimizer: str,
    objective_name: str,
    use_dropout: bool,
    params: Any,
    state: TrainState,
    hyper: Hyperparameters,
    batches: PackedBatch,
    held: HeldTexts | None = None,
) -> tuple[TrainState, Metrics]:
    """Return the state after one step on micro-batches [M, B, ...], and the step's metrics.

    The first four arguments are static. The gradients of the micro-batches are summed, and divided by the sum of their
    counts, so gradient accumulation changes nothing but the memory that is needed. The dropout is a function of (key,
    step, micro-batch, layer). `jax.vmap` may map the function over all but the base; on
    several devices with `spmd_axis_name=map_adapters(placement)`.

    On the texts of `held`, the model shall predict what the base predicts: `hyper.divergence` times the mean divergence
    (`mean_divergence`) is added to the mean loss. It does not depend on the micro-batches. The metrics then have it as
    `divergence`.
    """
    key = jax.random.fold_in(jax.random.wrap_key_data(state.key), state.step)
    gradients = _Gradients(model, params, objective_name, hyper, key if use_dropout else None)
    if held is None:
        value, count, sums, gradient = gradients.of_micro_batches(state.adapter, batches)
    elif _fit_into_one_row(model, batches, held[0]):
        value, count, sums, gradient = gradients.of_one_row(state.adapter, batches, *held)
    else:
        found = gradients.of_micro_batches(state.adapter, batches)
        value, count, sums, gradient = gradients.with_texts(state.adapter, found, len(batches.tokens), *held)
    updates, opt_state = OPTIMIZERS[optimizer](hyper).update(gradient, state.opt_state, state.adapter)
    adapter = optax.apply_updates(state.adapter, updates)
    metrics = Metrics(value, count, optax.tree.norm(gradient), sums)
    new = TrainState(adapter, opt_state, state.step + 1, state.key)  # type: ignore[arg-type]
    # Laid out as it came in: whole on every device, because the next step's program is compiled for that.
    return constrained(model.placement, (new, metrics))


train_program = jax.jit(train_step, static_argnums=(0, 1, 2, 3), donate_argnums=(5,))
"""`train_step`, jitted. The old state is donated: its memory becomes the new state's."""


def step_batch(model: Transformer, batch: PackedBatch, put: Callable[..., Any] = placed) -> PackedBatch:
    """Return a batch as a step's program takes it: on the mesh, and for a kernel without lists of blocks.

    Kernels do not read the lists, and batches whose lists differ in length would each need a program. With
    `put=described`, the result is shapes and types alone.
    """
    if model.attention != "blocks":
        batch = batch.replace(blocks=batch.blocks[..., :0])  # type: ignore[attr-defined]
    return on_mesh(model.placement, batch, put=put)
