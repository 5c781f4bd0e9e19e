"""Multiple regression on standardised numbers, and how collinear its predictors are."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from jaxalign.analysis.estimates import Estimate

FEWEST_FREE = 10
"""A regression needs this many units more than it has coefficients, the constant included."""
HIGH_CORRELATION = 0.5
"""From this absolute correlation on, a pair of predictors is flagged."""


@dataclass(frozen=True)
class Collinearity:
    """How far predictors can be told apart."""

    inflation: dict[str, float]
    """The variance inflation factor of each predictor: 1 if it is unrelated to the others, infinite if they give it."""
    pairs: dict[tuple[str, str], float]
    """The pairs whose correlation is at least `HIGH_CORRELATION` from 0, strongest first."""
    n: int


@dataclass(frozen=True)
class Regression:
    """A multiple regression: standardised coefficients, in standard deviations of y for one of the predictor."""

    coefficients: dict[str, Estimate]
    r2: float | None
    """The share of the variance of y that the predictors explain, adjusted for how many they are."""
    collinearity: Collinearity
    n: int
    reason: str | None = None
    """Why there are no coefficients."""


def collinearity(x: np.ndarray, names: Sequence[str]) -> Collinearity:
    """Return how collinear the columns of x [n, V] are; a constant column has no inflation factor and no pairs."""
    x = np.asarray(x, np.float64)
    kept = [v for v in range(x.shape[1]) if len(x) and np.ptp(x[:, v]) > 0]
    z = (x[:, kept] - x[:, kept].mean(0)) / x[:, kept].std(0) if kept else x[:, kept]
    r = z.T @ z / max(1, len(z))
    pairs = {
        (names[kept[a]], names[kept[b]]): float(r[a, b])
        for a in range(len(kept))
        for b in range(a + 1, len(kept))
        if abs(r[a, b]) >= HIGH_CORRELATION
    }
    ordered = dict(sorted(pairs.items(), key=lambda pair: -abs(pair[1])))
    return Collinearity({names[v]: _inflation(z, column) for column, v in enumerate(kept)}, ordered, len(x))


def regression(y: np.ndarray, x: np.ndarray, names: Sequence[str], level: float = 0.95) -> Regression:
    """Return the multiple regression of y [n] on the columns of x [n, V], all standardised (ordinary least squares).

    Intervals and p-values are those of the t distribution with errors that allow for unequal variances (HC3: MacKinnon
    and White, 1985, doi 10.1016/0304-4076(85)90158-7). It is silent, with a reason, if there are fewer than
    `FEWEST_FREE` units more than coefficients, or if a predictor is a sum of others. A unit with NaN is missing.

    Args:
        y: [n] numbers, such as each adapter's mean harm in a category.
        x: [n, V] predictors, such as the ten scores of each adapter's target.
        names: [V] names of the predictors.
        level: the part of such intervals that hold the true coefficient.
    """
    x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
    known = np.logical_not(np.isnan(x).any(axis=1) | np.isnan(y))
    missing, n = int((~known).sum()), int(known.sum())
    x, y = x[known], y[known]
    shared = collinearity(x, names)
    needed = x.shape[1] + 1 + FEWEST_FREE
    reason = None
    if n < needed:
        reason = f"n = {n}; {x.shape[1]} predictors need at least {needed}"
    elif np.ptp(y) == 0:
        reason = "there is nothing to explain: all are equal"
    elif len(shared.inflation) < x.shape[1]:
        reason = f"constant: {', '.join(name for name in names if name not in shared.inflation)}"
    elif not all(np.isfinite(list(shared.inflation.values()))):
        sums = [name for name, factor in shared.inflation.items() if not np.isfinite(factor)]
        reason = f"the others give each of {', '.join(sums)}: no coefficient can be told apart"
    if reason:
        silent = Estimate(n=n, missing=missing, reason=reason)
        return Regression(dict.fromkeys(names, silent), None, shared, n, reason)

    from statsmodels.regression.linear_model import OLS

    z = (x - x.mean(0)) / x.std(0)
    fit = OLS((y - y.mean()) / y.std(), np.column_stack([np.ones(n), z])).fit(cov_type="HC3", use_t=True)
    limits = fit.conf_int(1 - level)
    coefficients = {
        name: Estimate(
            estimate=float(fit.params[v]),
            low=float(limits[v, 0]),
            high=float(limits[v, 1]),
            n=n,
            missing=missing,
            p=float(fit.pvalues[v]),
        )
        for v, name in enumerate(names, start=1)
    }
    return Regression(coefficients, float(fit.rsquared_adj), shared, n)


def _inflation(z: np.ndarray, column: int) -> float:
    from statsmodels.stats.outliers_influence import variance_inflation_factor

    others = np.delete(z, column, 1)
    if len(z) <= z.shape[1] or np.linalg.matrix_rank(z) == np.linalg.matrix_rank(others):
        return float("inf")
    return float(variance_inflation_factor(z, column))
