"""Supervised fine-tuning: minus the log-probability of the response, weighted by token."""

import jax


def sft_loss(log_probs: jax.Array, weight: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return (sum, count) of the weighted negative log-likelihood of predictions [B, P].

    The mean is sum / count over *all* micro-batches of a step, so packing and accumulation cannot bias it.
    """
    return -(log_probs * weight).sum(), weight.sum()
