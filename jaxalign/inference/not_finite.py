"""Logits that are NaN or infinite: neither a token nor a probability can be read from them."""

from jaxalign.errors import UserError

NOT_FINITE = -2
"""What the sampler's device gives in place of a token when the logits are not finite. So no step waits for a test."""


def not_finite() -> UserError:
    """Return the error of a model whose logits are NaN or infinite."""
    return UserError(
        "the model's logits are NaN or infinite, so there is no answer: its weights, or those of the adapter times "
        "adapter.scale, are too large; ask the base alone, use a smaller adapter.scale, or get the model again"
    )
