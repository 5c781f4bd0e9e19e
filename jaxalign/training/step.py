"""One optimiser step and one evaluation, as pure functions of their arguments."""

from functools import partial

import flax.struct
import jax
import jax.numpy as jnp
import optax

from jaxalign.data.trees import PackedBatch
from jaxalign.models.lora import Adapter, effective
from jaxalign.models.transformer import Transformer, head_kernel
from jaxalign.objectives.log_probs import gather_sources, prediction_log_probs
from jaxalign.objectives.sft import sft_loss
from jaxalign.training.optimizer import OPTIMIZERS, Hyperparameters
from jaxalign.training.state import TrainState


@flax.struct.dataclass
class Metrics:
    """Sums over a step, divided only when they are logged: the loss, its count (weights), the gradient's norm."""

    loss_sum: jax.Array
    loss_count: jax.Array
    gradient_norm: jax.Array


def batch_log_probs(model: Transformer, params, adapter: Adapter | None, batch: PackedBatch, dropout=None) -> jax.Array:
    """Return float32 [B, P]: the log-probability of each prediction of a batch.

    `adapter` is effective (its scale multiplied in), or None for the bare base.
    """
    variables = {"params": params} if adapter is None else {"params": params, "lora": adapter}
    states = model.apply(variables, batch.tokens, batch.positions, batch.ends, dropout)
    with jax.named_scope("head"):
        head = head_kernel(params, model.architecture)
        return prediction_log_probs(
            gather_sources(states, batch.source),  # type: ignore[arg-type]
            head,
            batch.target,
            model.architecture.logit_softcap,  # type: ignore[arg-type]
        )


def train_step(
    model: Transformer,
    optimizer: str,
    use_dropout: bool,
    params,
    state: TrainState,
    hyper: Hyperparameters,
    batches: PackedBatch,
) -> tuple[TrainState, Metrics]:
    """Take one step on micro-batches stacked to [M, B, ...]; model, optimizer and use_dropout are static.

    Gradients are summed over the micro-batches and divided by the sum of all weights, so accumulation changes nothing
    but memory. Dropout derives from (key, step, micro-batch, layer). May be mapped by `jax.vmap` over state, hyper and
    batches, with params unmapped.
    """
    key = jax.random.fold_in(jax.random.wrap_key_data(state.key), state.step)

    def loss(adapter, batch, index):
        dropout = (jax.random.fold_in(key, index), jnp.asarray(hyper.dropout)) if use_dropout else None
        log_probs = batch_log_probs(model, params, effective(adapter, hyper.scale), batch, dropout)
        return sft_loss(log_probs, batch.weight)  # type: ignore[arg-type]

    def accumulate(carry, item):
        (value, count), gradient = jax.value_and_grad(loss, has_aux=True)(state.adapter, *item)
        return jax.tree.map(jnp.add, carry, (value, count, gradient)), None

    micro_batches = batches.tokens.shape[0]
    start = (jnp.zeros(()), jnp.zeros(()), jax.tree.map(jnp.zeros_like, state.adapter))
    (value, count, gradient), _ = jax.lax.scan(accumulate, start, (batches, jnp.arange(micro_batches)))
    gradient = jax.tree.map(lambda g: g / jnp.maximum(count, 1e-9), gradient)
    updates, opt_state = OPTIMIZERS[optimizer](hyper).update(gradient, state.opt_state, state.adapter)
    adapter = optax.apply_updates(state.adapter, updates)
    metrics = Metrics(value, count, optax.tree.norm(gradient))
    return TrainState(adapter, opt_state, state.step + 1, state.key), metrics  # type: ignore[arg-type]


@partial(jax.jit, static_argnums=(0,))
def log_probs_program(model: Transformer, params, adapter: Adapter, scale, batch: PackedBatch) -> jax.Array:
    """Return float32 [B, P] for reading a model; `adapter` is raw, `scale` is alpha / rank (0: the base)."""
    return batch_log_probs(model, params, effective(adapter, scale), batch)


train_program = jax.jit(train_step, static_argnums=(0, 1, 2), donate_argnums=(4,))
"""`train_step`, compiled; the old state's memory becomes the new one's."""
