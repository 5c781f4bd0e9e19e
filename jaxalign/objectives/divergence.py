"""The divergence of a model from its frozen base at each prediction: what a regulariser keeps small.

The head is applied in chunks, and its weight has no gradient, as in `log_probs`.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float32

from jaxalign.models.precision import dot
from jaxalign.objectives.log_probs import in_chunks


@partial(jax.custom_vjp, nondiff_argnums=(3,))
def prediction_divergences(
    hidden: Float[Array, "B P D"],
    base: Float[Array, "B P D"],
    head: Float[Array, "V D"],
    softcap: float | None = None,
) -> Float32[Array, "B P"]:
    """Return KL(base || model) [B, P] in nats, over the whole vocabulary.

    It is the sum over all tokens v of p_base(v) (log p_base(v) - log p_model(v)): 0 where both predict the same, and
    large where the model no longer expects what the base does. Only `hidden` has a gradient.

    Args:
        hidden: the model's states that predict.
        base: the base's states at the same places.
        head: the head of both, frozen.
        softcap: logits are capped to `softcap * tanh(logit / softcap)`.
    """
    return in_chunks(partial(_chunk, head, softcap, False), hidden, base)[0]


def _chunk(
    head: Float[Array, "V D"],
    softcap: float | None,
    with_gradients: bool,
    hidden: Float[Array, "B p D"],
    base: Float[Array, "B p D"],
) -> tuple[Float32[Array, "B p"], Float[Array, "B p D"] | None]:
    """Return the divergences of a chunk, and the gradient of each in its hidden state (None if not wanted)."""

    def predicted(states: Float[Array, "B p D"]) -> tuple[Float32[Array, "B p V"], Float32[Array, "B p V"] | None]:
        logits = dot(states, head, ((2,), (1,)))
        if softcap is None:
            return jax.nn.log_softmax(logits), None
        tanh = jnp.tanh(logits / softcap)
        return jax.nn.log_softmax(softcap * tanh), 1.0 - tanh * tanh

    (ours, derivative), (theirs, _) = predicted(hidden), predicted(base)
    wanted = jnp.exp(theirs)
    divergences = (wanted * (theirs - ours)).sum(-1)
    if not with_gradients:
        return divergences, None
    excess = jnp.exp(ours) - wanted
    if derivative is not None:
        excess = excess * derivative
    return divergences, dot(excess.astype(hidden.dtype), head, ((2,), (0,))).astype(hidden.dtype)


def _forward(
    hidden: Float[Array, "B P D"], base: Float[Array, "B P D"], head: Float[Array, "V D"], softcap: float | None
) -> tuple[Float32[Array, "B P"], Float[Array, "B P D"]]:
    return in_chunks(partial(_chunk, head, softcap, True), hidden, base)


def _backward(
    softcap: float | None, gradients: Float[Array, "B P D"], upstream: Float32[Array | np.ndarray, "B P"]
) -> tuple[Float[Array, "B P D"], None, None]:
    scaled = jnp.multiply(upstream[..., None], gradients.astype(jnp.float32))
    return scaled.astype(gradients.dtype), None, None


prediction_divergences.defvjp(_forward, _backward)
