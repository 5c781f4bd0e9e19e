"""The divergence of a model from its frozen base at each prediction: what a regulariser keeps small.

The head is applied in chunks, and its weight has no gradient, as in `log_probs`.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float32

from jaxalign.models.precision import dot
from jaxalign.objectives.log_probs import in_chunks
from jaxalign.parallel.rules import Placement
from jaxalign.parallel.vocabulary import VocabularyShare, on_each_device


@partial(jax.custom_vjp, nondiff_argnums=(3, 4))
def prediction_divergences(
    hidden: Float[Array, "B P D"],
    base: Float[Array, "B P D"],
    head: Float[Array, "V D"],
    softcap: float | None = None,
    placement: Placement | None = None,
) -> Float32[Array, "B P"]:
    """Return KL(base || model) [B, P] in nats, over the whole vocabulary.

    It is the sum over all tokens v of p_base(v) (log p_base(v) - log p_model(v)): 0 where both predict the same, and
    large where the model no longer expects what the base does. Only `hidden` has a gradient.

    Args:
        hidden: the model's states that predict.
        base: the base's states at the same places.
        head: the head of both, frozen.
        softcap: logits are capped to `softcap * tanh(logit / softcap)`.
        placement: divides rows and vocabulary between devices (`parallel.vocabulary`); None for one device.
    """
    return _run(hidden, base, head, softcap, placement, with_gradients=False)[0]


def _run(
    hidden: Float[Array, "B P D"],
    base: Float[Array, "B P D"],
    head: Float[Array, "V D"],
    softcap: float | None,
    placement: Placement | None,
    with_gradients: bool,
) -> tuple[Float32[Array, "B P"], Float[Array, "B P D"] | None]:
    def own(share: VocabularyShare, head: Array, hidden: Array, base: Array) -> Any:
        return in_chunks(partial(_chunk, share, head, softcap, with_gradients), hidden, base)

    return on_each_device(placement, own, head, hidden, base)


def _chunk(
    share: VocabularyShare,
    head: Float[Array, "V D"],
    softcap: float | None,
    with_gradients: bool,
    hidden: Float[Array, "B p D"],
    base: Float[Array, "B p D"],
) -> tuple[Float32[Array, "B p"], Float[Array, "B p D"] | None]:
    """Return the divergences of a chunk, and the gradient of each in its hidden state (None if not wanted)."""

    def predicted(states: Float[Array, "B p D"]) -> tuple[Float32[Array, "B p V"], Float32[Array, "B p V"] | None]:
        logits = dot(share.gathered(states), head, ((2,), (1,)))
        if softcap is None:
            return share.log_softmax(logits), None
        tanh = jnp.tanh(logits / softcap)
        return share.log_softmax(softcap * tanh), 1.0 - tanh * tanh

    (ours, derivative), (theirs, _) = predicted(hidden), predicted(base)
    wanted = jnp.exp(theirs)
    divergences = share.own_total((wanted * (theirs - ours)).sum(-1))
    if not with_gradients:
        return divergences, None
    excess = jnp.exp(ours) - wanted
    if derivative is not None:
        excess = excess * derivative
    gradients = share.own_total(dot(excess.astype(hidden.dtype), head, ((2,), (0,))))
    return divergences, gradients.astype(hidden.dtype)


def _forward(
    hidden: Float[Array, "B P D"],
    base: Float[Array, "B P D"],
    head: Float[Array, "V D"],
    softcap: float | None,
    placement: Placement | None,
) -> tuple[Float32[Array, "B P"], Float[Array, "B P D"] | None]:
    return _run(hidden, base, head, softcap, placement, with_gradients=True)


def _backward(
    softcap: float | None,
    placement: Placement | None,
    gradients: Float[Array, "B P D"],
    upstream: Float32[Array | np.ndarray, "B P"],
) -> tuple[Float[Array, "B P D"], None, None]:
    scaled = jnp.multiply(upstream[..., None], gradients.astype(jnp.float32))
    return scaled.astype(gradients.dtype), None, None


prediction_divergences.defvjp(_forward, _backward)
