"""The loss of supervised fine-tuning: minus the log-probability of the response's tokens, each with a weight."""

import numpy as np
from jaxtyping import Array, Float32


def sft_loss(
    log_probs: Float32[Array | np.ndarray, "B P"], weight: Float32[Array | np.ndarray, "B P"]
) -> tuple[Float32[Array, ""], Float32[Array, ""]]:
    """Return (sum, count): the weighted negative log-likelihood of predictions [B, P] in nats, and their weight.

    The loss of a step is the sum of its micro-batches' sums, divided by the sum of their counts. So it depends neither
    on packing nor on gradient accumulation.
    """
    return -(log_probs * weight).sum(), weight.sum()
