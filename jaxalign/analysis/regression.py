"""Multiple regression on standardised numbers, and how collinear its predictors are."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from jaxalign.analysis.estimates import Estimate

FEWEST_FREE = 10
"""A regression needs this many units more than it has coefficients, the constant included."""
FEWEST_BLOCKS = 8
"""With fewer blocks of units that resemble each other, a regression is not given."""
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


def regression(
    y: np.ndarray, x: np.ndarray, names: Sequence[str], level: float = 0.95, *, blocks: Sequence[object] | None = None
) -> Regression:
    """Return the multiple regression of y [n] on the columns of x [n, V], all standardised (ordinary least squares).

    Intervals and p-values are those of the t distribution with errors that allow for unequal variances (HC3: MacKinnon
    and White, 1985, doi 10.1016/0304-4076(85)90158-7). With blocks, the errors are those of the jackknife that leaves
    out one block at a time, with as many degrees of freedom as blocks less one.

    It is silent, with a reason, if there are fewer than `FEWEST_FREE` units more than coefficients or fewer than
    `FEWEST_BLOCKS` blocks, or if a predictor is a sum of others, also without one of the blocks. A unit with NaN is
    missing.

    Args:
        y: [n] numbers, such as each adapter's mean harm in a category.
        x: [n, V] predictors, such as the ten scores of each adapter's target.
        names: [V] names of the predictors.
        level: the part of such intervals that hold the true coefficient.
        blocks: [n] the block of each unit: those of one block resemble each other. None makes each unit its own.
    """
    x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
    known = np.logical_not(np.isnan(x).any(axis=1) | np.isnan(y))
    missing, n = int((~known).sum()), int(known.sum())
    x, y = x[known], y[known]
    shared = collinearity(x, names)
    members = None if blocks is None else _members([one for one, there in zip(blocks, known, strict=True) if there])
    clusters = None if members is None else len(members)
    needed = x.shape[1] + 1 + FEWEST_FREE
    reason = None
    if n < needed:
        reason = f"n = {n}; {x.shape[1]} predictors need at least {needed}"
    elif clusters is not None and clusters < FEWEST_BLOCKS:
        reason = f"n = {clusters} blocks; at least {FEWEST_BLOCKS} are needed"
    elif np.ptp(y) == 0:
        reason = "there is nothing to explain: all are equal"
    elif len(shared.inflation) < x.shape[1]:
        reason = f"constant: {', '.join(name for name in names if name not in shared.inflation)}"
    elif not all(np.isfinite(list(shared.inflation.values()))):
        sums = [name for name, factor in shared.inflation.items() if not np.isfinite(factor)]
        reason = f"the others give each of {', '.join(sums)}: no coefficient can be told apart"
    elif members is not None and not all(_is_full(np.delete(x, some, 0)) for some in members):
        reason = "without one of the blocks, the others give one of the predictors"
    if reason:
        silent = Estimate(n=n, missing=missing, clusters=clusters, reason=reason)
        return Regression(dict.fromkeys(names, silent), None, shared, n, reason)

    from scipy.stats import t
    from statsmodels.regression.linear_model import OLS

    z, target = np.column_stack([np.ones(n), (x - x.mean(0)) / x.std(0)]), (y - y.mean()) / y.std()
    fit = OLS(target, z).fit(cov_type="HC3", use_t=True)
    error, free = fit.bse, n - z.shape[1]
    if members is not None:  # with 14 blocks and 10 predictors, statsmodels' errors for clusters cover 54 to 89 %
        error, free = _jackknife_errors(target, z, fit.params, members), len(members) - 1
    wide = float(t.ppf((1 + level) / 2, free))
    coefficients = {
        name: Estimate(
            estimate=float(fit.params[v]),
            low=float(fit.params[v] - wide * error[v]),
            high=float(fit.params[v] + wide * error[v]),
            n=n,
            missing=missing,
            clusters=clusters,
            p=float(2 * t.sf(abs(fit.params[v] / error[v]), free)),
        )
        for v, name in enumerate(names, start=1)
    }
    return Regression(coefficients, float(fit.rsquared_adj), shared, n)


def _members(blocks: Sequence[object]) -> list[np.ndarray]:
    """Return the units of each block."""
    by_block: dict[object, list[int]] = {}
    for unit, block in enumerate(blocks):
        by_block.setdefault(block, []).append(unit)
    return [np.array(units) for units in by_block.values()]


def _is_full(x: np.ndarray) -> bool:
    """Return whether no column of x [n, V] is a sum of others and of a constant."""
    return int(np.linalg.matrix_rank(np.column_stack([np.ones(len(x)), x]))) == x.shape[1] + 1


def _jackknife_errors(y: np.ndarray, z: np.ndarray, params: np.ndarray, members: Sequence[np.ndarray]) -> np.ndarray:
    """Return the standard errors of the coefficients `params` of y [n] on z [n, K], each block left out once."""
    without = [np.linalg.lstsq(np.delete(z, some, 0), np.delete(y, some), rcond=None)[0] for some in members]
    return np.sqrt((len(members) - 1) / len(members) * np.square(np.stack(without) - params).sum(0))


def _inflation(z: np.ndarray, column: int) -> float:
    from statsmodels.stats.outliers_influence import variance_inflation_factor

    others = np.delete(z, column, 1)
    if len(z) <= z.shape[1] or np.linalg.matrix_rank(z) == np.linalg.matrix_rank(others):
        return float("inf")
    return float(variance_inflation_factor(z, column))
