"""Direct preference optimisation: pairs of responses, compared by how far each moved away from a reference.

Everything starts from the log-probability of each *response*, so a response that stands in many pairs is computed once.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float32, Int32

from jaxalign.models.precision import Number


class Preferences(NamedTuple):
    """The pairs of a batch: (chosen, rejected) as branch numbers int32 [M, 2], the weight of each float32 [M] (0 for
    padding), and the reference's log-probability of every branch, float32 [R]."""

    pairs: Int32[Array | np.ndarray, "... M 2"]
    weight: Float32[Array | np.ndarray, "... M"]
    reference: Float32[Array | np.ndarray, "... R"]


def dpo_loss(
    log_probs: Float32[Array, " R"],
    lengths: Float32[Array, " R"],
    preferences: Preferences,
    beta: Number,
    *,
    kind: str = "sigmoid",
    smoothing: Number = 0.0,
    likelihood: Number = 0.0,
) -> tuple[Float32[Array, ""], Float32[Array, ""], dict[str, Float32[Array, ""]]]:
    """Return (sum, count, sums of metrics) over the pairs of a batch; each sum is divided by the count when logged. The
    metrics have the names that TRL and others give them.

    With d = (log-ratio of the chosen response) - (log-ratio of the rejected), a log-ratio being log-probability less
    reference: `sigmoid` is -log sigmoid(beta d) (Rafailov et al., 2023, arXiv 2305.18290); `hinge` is
    max(0, 1 - beta d) (Zhao et al., 2023, arXiv 2305.10425); `ipo` is (d - 1 / (2 beta))^2 over log-ratios per token
    (Azar et al., 2023, arXiv 2310.12036; per token as in TRL).

    Args:
        log_probs: float32 [R], summed over each response's tokens.
        lengths: float32 [R], tokens of each response.
        preferences: the pairs and the reference.
        beta: strength of the pull towards the reference, above 0.
        kind: `sigmoid`, `hinge` or `ipo`.
        smoothing: share of pairs taken to be labelled the wrong way round (sigmoid only; below 0.5).
        likelihood: weight of an added term, minus the chosen response's log-probability per token.
    """
    ratio = log_probs - preferences.reference
    per_token = jnp.maximum(lengths, 1.0)
    chosen, rejected = preferences.pairs[:, 0], preferences.pairs[:, 1]
    difference = ratio[chosen] - ratio[rejected]
    if kind == "sigmoid":
        right, wrong = jax.nn.log_sigmoid(beta * difference), jax.nn.log_sigmoid(-beta * difference)
        losses = -(1.0 - smoothing) * right - smoothing * wrong
    elif kind == "hinge":
        losses = jax.nn.relu(1.0 - beta * difference)
    else:
        mean = ratio / per_token
        losses = (mean[chosen] - mean[rejected] - 1.0 / (2.0 * beta)) ** 2
    losses = losses - likelihood * (log_probs / per_token)[chosen]

    def total(values: Float32[Array | np.ndarray, " M"]) -> Float32[Array, ""]:
        # Padding pairs point at branch 0, whose numbers are finite; what is not finite must not hide behind a 0.
        return jnp.where(preferences.weight != 0, values * preferences.weight, 0.0).sum()

    metrics = {
        "rewards/chosen": total(beta * ratio[chosen]),
        "rewards/rejected": total(beta * ratio[rejected]),
        "rewards/margins": total(beta * difference),
        "rewards/accuracies": total((difference > 0).astype(jnp.float32)),
        "logps/chosen": total(log_probs[chosen]),
        "logps/rejected": total(log_probs[rejected]),
    }
    return total(losses), preferences.weight.sum(), metrics
