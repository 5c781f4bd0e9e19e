"""The forward pass: from a packed batch to the log-probability of each prediction."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Float32, Float64

from jaxalign.data.packing import PackedBatch
from jaxalign.data.placed_batch import on_mesh
from jaxalign.models.lora import LoraParams, adapted_layers, effective
from jaxalign.models.precision import Number
from jaxalign.models.transformer import Dropout, Transformer, head_kernel
from jaxalign.objectives.divergence import prediction_divergences
from jaxalign.objectives.log_probs import gather_sources, most_probable, prediction_log_probs
from jaxalign.parallel.compilation import Programs
from jaxalign.parallel.rules import constrained, map_adapters


def batch_log_probs(
    model: Transformer, params: Any, adapter: LoraParams | None, batch: PackedBatch, dropout: Dropout | None = None
) -> Float32[Array, "B P"]:
    """Return the log-probability [B, P] of each prediction of a batch, in nats.

    `adapter` is an effective adapter (see `lora.effective`), or None for the bare base.
    """
    return predicted_log_probs(model, params, batch_states(model, params, adapter, batch, dropout), batch)


def batch_states(
    model: Transformer, params: Any, adapter: LoraParams | None, batch: PackedBatch, dropout: Dropout | None = None
) -> Float[Array, "B T D"]:
    """Return the last hidden states [B, T, D] of a batch; for `adapter` see `batch_log_probs`."""
    variables = {"params": params} if adapter is None else {"params": params, "lora": adapter}
    return model.apply(variables, batch.tokens, batch.positions, batch.ends, batch.blocks, dropout)  # type: ignore


def predicted_log_probs(
    model: Transformer, params: Any, states: Float[Array, "B T D"], batch: PackedBatch
) -> Float32[Array, "B P"]:
    """Return the log-probability [B, P] of each prediction of a batch, in nats, given its states [B, T, D]."""
    with jax.named_scope("head"):
        head, softcap = head_kernel(params, model.architecture), model.architecture.logit_softcap
        hidden: Any = gather_sources(states, batch.source)  # type: ignore[arg-type]
        return prediction_log_probs(hidden, head, batch.target, softcap, model.placement)  # type: ignore[arg-type]


def mean_divergence(
    model: Transformer, params: Any, states: Float[Array, "B T D"], batch: PackedBatch, base: Float[Array, "B P D"]
) -> Float32[Array, ""]:
    """Return the mean of KL(base || model) over the predictions of a batch, with their weights, in nats.

    `states` [B, T, D] are the model's, and `base` [B, P, D] those of the bare base that predict (`states_program`),
    read without dropout. They have no gradient.
    """
    with jax.named_scope("head"):
        head, softcap = head_kernel(params, model.architecture), model.architecture.logit_softcap
        ours: Any = gather_sources(states, batch.source)  # type: ignore[arg-type]
        divergences: Any = prediction_divergences(ours, base, head, softcap, model.placement)
        return jnp.sum(divergences * batch.weight) / jnp.sum(jnp.asarray(batch.weight))


@partial(jax.jit, static_argnums=(0,))
def divergence_program(
    model: Transformer,
    params: Any,
    adapter: LoraParams,
    scale: Float32[Array | np.ndarray, ""],
    batch: PackedBatch,
    base: Float[Array, "B P D"],
) -> Float32[Array, ""]:
    """Return `mean_divergence` of an adapter, without dropout; `scale` is alpha / rank."""
    states = batch_states(model, params, effective(adapter, scale), batch)
    return mean_divergence(model, params, states, batch, base)


@partial(jax.jit, static_argnums=(0,))
def log_probs_program(
    model: Transformer, params: Any, adapter: LoraParams, scale: Float32[Array | np.ndarray, "*A"], batch: PackedBatch
) -> Float32[Array, "*A B P"]:
    """Return the log-probability [B, P] of each prediction of a batch, without dropout.

    `scale` is alpha / rank; 0 gives the bare base. With a stack of adapters [A, ...], their scales [A] and a batch for
    each [A, B, ...], the result is [A, B, P].
    """

    def read(adapter: LoraParams, scale: Number, batch: PackedBatch) -> Float32[Array, "B P"]:
        return batch_log_probs(model, params, effective(adapter, scale), batch)

    placement = model.placement
    mapped = jax.vmap(read, spmd_axis_name=map_adapters(placement)) if jnp.ndim(scale) else read
    return constrained(placement, mapped(adapter, scale, batch))  # whole on every device, as every process reads it


@partial(jax.jit, static_argnums=(0,))
def choices_program(
    model: Transformer, params: Any, adapter: LoraParams, scale: Float32[Array | np.ndarray, ""], batch: PackedBatch
) -> tuple[Float32[Array, "B P"], Bool[Array, "B P"]]:
    """Return the log-probability [B, P] of each prediction, and whether another token is more probable than its own."""
    states = batch_states(model, params, effective(adapter, scale), batch)
    head, softcap = head_kernel(params, model.architecture), model.architecture.logit_softcap
    hidden = gather_sources(states, batch.source)  # type: ignore[arg-type]
    target = jnp.asarray(batch.target)
    log_probs: Any = prediction_log_probs(hidden, head, target, softcap, model.placement)
    surpassed = most_probable(hidden, head, softcap, model.placement) != target
    return constrained(model.placement, (log_probs, surpassed))


@partial(jax.jit, static_argnums=(0,))
def states_program(
    model: Transformer, params: Any, adapter: LoraParams, scale: Float32[Array | np.ndarray, ""], batch: PackedBatch
) -> Float[Array, "B P D"]:
    """Return the hidden state [B, P, D], after the last norm, that makes each prediction of a batch.

    `model` may have fewer layers than the weights: then the first ones are used. `NO_ADAPTER` gives those of the base.
    """
    layers = effective(adapter, scale)["layers"]
    left_out = len(jax.tree.leaves(params["layers"])[0]) - model.architecture.layers
    count = max(adapted_layers(layers) - left_out, 0)
    states = batch_states(model, params, {"layers": jax.tree.map(lambda leaf: leaf[:count], layers)}, batch)
    return constrained(model.placement, gather_sources(states, batch.source))  # type: ignore[arg-type]


ReadLogProbs = Callable[[PackedBatch], Float64[np.ndarray, "*A B P"]]
"""From a batch to the log-probabilities [B, P] of its predictions; [A, B, P] with a stack of adapters."""


def reader(
    model: Transformer, params: Any, adapter: LoraParams, scale: Number | Float[np.ndarray, " A"], programs: Programs
) -> ReadLogProbs:
    """Return the function that reads batches with an adapter, or with a stack of them; `scale` is alpha / rank."""

    def read(batch: PackedBatch) -> Float64[np.ndarray, "*A B P"]:
        given, batch = batch, on_mesh(model.placement, batch, adapters=np.ndim(scale) > 0)
        arguments = (params, adapter, np.asarray(scale, np.float32), batch)
        found = programs.get("read", log_probs_program, (model,), arguments)(*arguments)
        return np.asarray(found, np.float64)[..., : given.tokens.shape[-2], :]  # without the rows that `on_mesh` added

    return read
