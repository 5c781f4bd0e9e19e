"""Supervised fine-tuning: minus the log-probability of the response, weighted by token."""

import numpy as np
from jaxtyping import Array, Float32


def sft_loss(
    log_probs: Float32[Array | np.ndarray, "B P"], weight: Float32[Array | np.ndarray, "B P"]
) -> tuple[Float32[Array, ""], Float32[Array, ""]]:
    """Return (sum, count) of the weighted negative log-likelihood of predictions [B, P].

    The mean is sum / count over *all* micro-batches of a step, so packing and accumulation cannot bias it.
    """
    return -(log_probs * weight).sum(), weight.sum()
