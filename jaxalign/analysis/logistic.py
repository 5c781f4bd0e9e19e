"""Logistic regression with a penalty, fitted deterministically, and its cross-validation by groups.

N rows, D features.
"""

from collections.abc import Hashable, Sequence

import numpy as np
from jaxtyping import Bool, Float, Float64, Int
from scipy.optimize import minimize


def fit_logistic(
    features: Float[np.ndarray, "N D"], labels: Bool[np.ndarray, " N"], penalty: float
) -> tuple[Float64[np.ndarray, " D"], float]:
    """Return (weights [D], offset) of the log-odds `features @ weights + offset` that labels are true.

    They minimise the mean loss (the negative log-likelihood, in nats) + penalty / 2 * the sum of the squared weights of
    standardised features. The offset has no penalty. A feature that never varies has no weight.

    Args:
        features: the features.
        labels: at least one is true, and at least one is false.
        penalty: at least 0.
    """
    x, signs = np.asarray(features, np.float64), np.where(labels, 1.0, -1.0)
    centre, spread = x.mean(0), x.std(0)
    spread = np.where(spread > 1e-9 * (1 + np.abs(centre)), spread, np.inf)
    x = (x - centre) / spread

    def loss(packed: Float64[np.ndarray, " D+1"]) -> tuple[float, Float64[np.ndarray, " D+1"]]:
        weights, margins = packed[:-1], signs * (x @ packed[:-1] + packed[-1])
        slopes = -signs * np.exp(-np.logaddexp(0.0, margins)) / len(x)
        value = np.logaddexp(0.0, -margins).mean() + penalty / 2 * weights @ weights
        return float(value), np.append(x.T @ slopes + penalty * weights, slopes.sum())

    start = np.zeros(x.shape[1] + 1)
    found = minimize(loss, start, jac=True, method="L-BFGS-B", options={"maxiter": 2000, "ftol": 1e-14, "gtol": 1e-7}).x
    weights = found[:-1] / spread
    return weights, float(found[-1] - centre @ weights)


def grouped_folds(groups: Sequence[Hashable], folds: int = 5, seed: int = 0) -> Int[np.ndarray, " N"]:
    """Return for each row the number of its fold. Rows of one group are in one fold; folds have equally many groups."""
    names = list(dict.fromkeys(groups))
    order = np.random.Generator(np.random.PCG64(seed)).permutation(len(names))
    fold = {names[place]: number % folds for number, place in enumerate(order)}
    return np.asarray([fold[group] for group in groups])


def out_of_fold(
    features: Float[np.ndarray, "N D"], labels: Bool[np.ndarray, " N"], folds: Int[np.ndarray, " N"], penalty: float
) -> Float64[np.ndarray, " N"]:
    """Return the log-odds of each row by a regression that was fitted to the other folds."""
    found = np.zeros(len(labels))
    for fold in np.unique(folds):
        inside = folds == fold
        weights, offset = fit_logistic(features[~inside], labels[~inside], penalty)
        found[inside] = features[inside] @ weights + offset
    return found


def log_loss(log_odds: Float[np.ndarray, " N"], labels: Bool[np.ndarray, " N"]) -> float:
    """Return the mean negative log-likelihood of labels, in nats."""
    return float(np.logaddexp(0.0, np.where(labels, -log_odds, log_odds)).mean())
