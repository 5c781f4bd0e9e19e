"""Intervals of means and rates. Units of one cluster, such as samples of one prompt, are resampled together."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from jaxalign.analysis.estimates import Estimate
from jaxalign.analysis.statistics import DRAWS

FEWEST_CLUSTERS = 5
"""With fewer clusters, a mean is given without an interval: resampling so few says little."""
MOST_RESAMPLED = 500
"""With more clusters than this, the limits come from the normal approximation."""


def mean_with_interval(
    values: np.ndarray, clusters: np.ndarray | None = None, *, seed: int = 0, level: float = 0.95
) -> Estimate:
    """Return the mean of values, with a bootstrap interval that draws whole clusters (Davison and Hinkley, 1997, 3.8).

    The quantiles are those of Hesterberg (2015, doi 10.1080/00031305.2015.1089789): a bootstrap's own are too narrow
    for few clusters.

    Args:
        values: [N] numbers; NaN is missing, is counted, and enters nothing.
        clusters: [N] whole numbers from 0, such as numbers of prompts; None makes each value its own cluster.
        seed: for the draws.
        level: the part of such intervals that hold the true mean.
    """
    values = np.asarray(values, np.float64)
    known = ~np.isnan(values)
    n, missing = int(known.sum()), int((~known).sum())
    if not n:
        return Estimate(n=0, missing=missing, reason="there is no value")
    sums, counts = cluster_sums(values, clusters)
    few = Estimate(estimate=float(sums.sum() / n), n=n, missing=missing, clusters=len(sums))
    if len(sums) < FEWEST_CLUSTERS:
        return replace(few, reason=f"n = {len(sums)}; an interval needs at least {FEWEST_CLUSTERS}")
    low, high = ratio_interval(sums, counts, seed, level)
    return replace(few, low=low, high=high)


def rate_with_interval(
    flags: np.ndarray, clusters: np.ndarray | None = None, *, seed: int = 0, level: float = 0.95
) -> Estimate:
    """Return the share of ones among 0/1 values, with an interval by draws.

    Where each value is its own cluster, the draws are binomial (see `binomial_interval`); otherwise whole clusters are
    drawn. Values that are all equal leave a bootstrap nothing to vary: then each cluster counts as one binomial draw.

    Args:
        flags: [N] numbers 0 or 1; NaN is missing, is counted, and enters nothing.
        clusters: [N] whole numbers from 0; None makes each value its own cluster.
        seed: for the draws of clusters.
        level: the part of such intervals that hold the true rate.
    """
    flags = np.asarray(flags, np.float64)
    known = ~np.isnan(flags)
    n, missing, ones = int(known.sum()), int((~known).sum()), int(np.nansum(flags))
    if not n:
        return Estimate(n=0, missing=missing, reason="there is no value")
    groups = n if clusters is None else len(np.unique(np.asarray(clusters)[known]))
    if groups < n and 0 < ones < n:
        return mean_with_interval(flags, clusters, seed=seed, level=level)
    low, high = binomial_interval(round(ones / n * groups), groups, level)
    return Estimate(estimate=ones / n, low=float(low), high=float(high), n=n, missing=missing, clusters=groups)


def binomial_interval(ones, n, level: float = 0.95):
    """Return the limits (low, high) of the rate behind `ones` of n, by draws of Binomial(m, p) / m.

    Draws with m = n and p = ones / n cover far less than the level where the rate is near 0 or 1: none of 30 would give
    the interval [0, 0]. So z² draws are added, half of them ones, as Agresti and Coull (1998, doi
    10.1080/00031305.1998.10480550) do. The limits are the exact quantiles of the draws.

    Args:
        ones: how many ones; a number or an array.
        n: of how many, at least 1; a number or an array.
        level: the part of such intervals that hold the true rate.
    """
    from scipy.stats import binom, norm

    more = norm.ppf((1 + level) / 2) ** 2
    rate = (np.asarray(ones) + more / 2) / (np.asarray(n) + more)
    draws = np.round(np.asarray(n) + more)
    return binom.ppf((1 - level) / 2, draws, rate) / draws, binom.ppf((1 + level) / 2, draws, rate) / draws


def cluster_sums(values: np.ndarray, clusters: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """Return the sum and the number of the known values of each cluster that has any; both are [clusters]."""
    known = ~np.isnan(values)
    if clusters is None:
        return values[known], np.ones(int(known.sum()))
    numbers = np.asarray(clusters)[known]
    counts = np.bincount(numbers).astype(np.float64)
    there = counts > 0
    return np.bincount(numbers, values[known])[there], counts[there]


def ratio_interval(sums: np.ndarray, counts: np.ndarray, seed: int, level: float) -> tuple[float, float]:
    """Return the bootstrap limits of sums.sum() / counts.sum(), where whole clusters are drawn; both are [clusters]."""
    from scipy.stats import norm

    pairs, times = np.unique(np.stack([sums, counts], 1), axis=0, return_counts=True)
    tail = narrow_tail(len(sums), level)
    if len(pairs) > MOST_RESAMPLED:
        mean = sums.sum() / counts.sum()
        error = np.sqrt(np.square(sums - mean * counts).sum()) / counts.sum()
        return float(mean + norm.ppf(tail) * error), float(mean - norm.ppf(tail) * error)
    random = np.random.Generator(np.random.PCG64(seed))
    if 4 * len(pairs) <= len(sums):  # few different clusters: it is enough to draw how often each kind comes
        drawn = random.multinomial(len(sums), times / len(sums), DRAWS) @ pairs
        means = drawn[:, 0] / drawn[:, 1]
    else:
        sizes = None if counts.min() == counts.max() else counts
        means = np.concatenate([_resampled(sums, sizes, one) for one in resamples(len(sums), DRAWS, random)])
        means = means / counts[0] if sizes is None else means
    low, high = np.quantile(means, [tail, 1 - tail])
    return float(low), float(high)


def _resampled(sums: np.ndarray, counts: np.ndarray | None, chosen: np.ndarray) -> np.ndarray:
    return sums[chosen].mean(1) if counts is None else sums[chosen].sum(1) / counts[chosen].sum(1)


def resamples(n: int, draws: int, random: np.random.Generator) -> Iterator[np.ndarray]:
    """Yield arrays [some draws, n] of numbers below n, `draws` rows in all, each of a size that stays in the cache."""
    rows = max(1, 100_000 // n)
    for start in range(0, draws, rows):
        yield random.integers(0, n, (min(rows, draws - start), n), dtype=np.int32)


def narrow_tail(n: int, level: float) -> float:
    """Return the part that an interval cuts off at each end of a bootstrap of n clusters (Hesterberg, 2015, 5.3.1)."""
    from scipy.stats import norm, t

    return float(norm.cdf(-np.sqrt(n / (n - 1)) * t.ppf((1 + level) / 2, n - 1)))
