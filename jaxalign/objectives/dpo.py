"""Direct preference optimisation (DPO): a loss over pairs of responses, relative to a reference model.

It is computed from the log-probability of each *response*, so a response that is in many pairs is computed once.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float32, Int32

from jaxalign.models.precision import Number

LOSSES = ("sigmoid", "ipo", "hinge")


class Preferences(NamedTuple):
    """The pairs of a batch.

    pairs      (chosen, rejected) as numbers of branches
    weight     the weight of each pair, 0 for padding
    reference  the log-probability of each branch under the reference, in nats
    """

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
    """Return (sum, count, sums of metrics) over the pairs of a batch. To log them, divide each sum by the count.

    The metrics have the names that they have in TRL.

    Let d = (log-ratio of the chosen response) - (log-ratio of the rejected), where a log-ratio is the log-probability
    minus that of the reference. The loss of a pair is

    sigmoid  -log sigmoid(beta d) (Rafailov et al., 2023, arXiv 2305.18290)
    hinge    max(0, 1 - beta d) (Zhao et al., 2023, arXiv 2305.10425)
    ipo      (d - 1 / (2 beta))^2, with log-ratios per token, as in TRL (Azar et al., 2023, arXiv 2310.12036)

    Args:
        log_probs: log-probability of each response, in nats.
        lengths: number of tokens of each response.
        preferences: the pairs, and the reference.
        beta: how strongly the reference holds the model, above 0.
        kind: one of `LOSSES`.
        smoothing: share of pairs that are assumed to be labelled the wrong way round, below 0.5; for `sigmoid` only.
        likelihood: weight of an added term, minus the log-probability per token of the chosen response (as in Pang et
            al., 2024, arXiv 2404.19733).
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
        # Pairs of padding name branch 0. If its numbers are infinite, 0 times them would be NaN.
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
