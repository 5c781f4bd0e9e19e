"""Differences between two conditions, paired unit by unit, and the noise that differences are read against."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from jaxalign.analysis.estimates import Estimate, too_few
from jaxalign.analysis.intervals import mean_with_interval

FEWEST_PAIRS = 6
"""Six pairs of one sign are the fewest that a test of signs can call an effect: 2 / 2^6 is under 0.05."""
FLIPS = 10_000
MOST_FLIPPED = 500
"""With more pairs than this, the p-value comes from the normal approximation."""


@dataclass(frozen=True)
class Difference:
    """A mean difference, and its size in standard deviations of the differences."""

    mean: Estimate
    """First minus second, in their unit; p is that of a test that flips signs."""
    size: float | None
    """Cohen's d of paired differences, corrected for few pairs (Hedges, 1981); None where it is not defined."""


def paired_difference(
    first: Mapping[str, float | None], second: Mapping[str, float | None], *, seed: int = 0, level: float = 0.95
) -> Difference:
    """Return the mean of first minus second over the ids that both know, with a bootstrap interval.

    Args:
        first: a number for each id, such as the mean harm of each prompt (`prompt_means`); None is missing.
        second: the same of the other condition.
        seed: for the draws.
        level: the part of such intervals that hold the true difference.
    """
    ids = list(dict.fromkeys([*first, *second]))
    one, other = (np.array([as_number(side.get(name)) for name in ids], np.float64) for side in (first, second))
    differences = one - other
    known = differences[~np.isnan(differences)]
    missing = len(differences) - len(known)
    if len(known) < FEWEST_PAIRS:
        few = too_few(len(known), FEWEST_PAIRS, "pairs", missing=missing)
        return Difference(replace(few, estimate=float(known.mean()) if len(known) else None), None)
    found = mean_with_interval(known, seed=seed, level=level)
    spread = known.std(ddof=1)
    size = known.mean() / spread * (1 - 3 / (4 * len(known) - 5)) if spread > 1e-12 else None
    mean = replace(found, missing=missing, clusters=None, p=_sign_flips(known, seed))
    return Difference(mean, None if size is None else float(size))


def noise_floor(values: Sequence[float | None], targets: Sequence[object]) -> Estimate:
    """Return the standard deviation between seeds of one target, pooled over targets, in the unit of the values.

    Seeds of one target are no independent units: their spread is what a difference must exceed. The interval is that of
    a variance of normal values (chi-squared). n is the number of values in targets with two seeds or more.
    """
    from scipy.stats import chi2

    groups: dict[object, list[float]] = {}
    for value, target in zip(values, targets, strict=True):
        if value is not None and not np.isnan(value):
            groups.setdefault(target, []).append(value)
    several = [np.array(group) for group in groups.values() if len(group) > 1]
    n, missing = sum(map(len, several)), len(values) - sum(map(len, groups.values()))
    free = n - len(several)
    if not free:
        return Estimate(n=0, missing=missing, reason="no target has two seeds")
    squares = float(sum(np.square(group - group.mean()).sum() for group in several))
    low, high = (float(np.sqrt(squares / chi2.ppf(tail, free))) for tail in (0.975, 0.025))
    return Estimate(estimate=(squares / free) ** 0.5, low=low, high=high, n=n, missing=missing, clusters=len(several))


def as_number(value: float | None) -> float:
    """Return a figure as a number for an array: one that is missing, None, is NaN."""
    return float("nan") if value is None else float(value)


def _sign_flips(differences: np.ndarray, seed: int) -> float:
    """Return the two-sided p-value of a mean difference if each difference is as likely with the other sign."""
    differences = differences[differences != 0]  # a difference of nothing is the same with either sign
    n, squares = len(differences), np.square(differences)
    if not n:
        return 1.0
    # Few large differences among many small ones count as few: then the sum is far from normal.
    if squares.sum() ** 2 > MOST_FLIPPED * np.square(squares).sum():
        from scipy.stats import norm

        return float(2 * norm.sf(abs(differences.sum()) / np.sqrt(squares.sum())))
    if 2**n <= FLIPS:
        signs = np.array(np.meshgrid(*[[1.0, -1.0]] * n, indexing="ij")).reshape(n, -1).T
        sums = signs @ differences
    else:
        random = np.random.Generator(np.random.PCG64(seed))
        rows = max(1, 2_000_000 // n)
        parts = [
            (random.random((min(rows, FLIPS - 1 - start), n), dtype=np.float32) < 0.5) @ differences
            for start in range(0, FLIPS - 1, rows)
        ]
        sums = np.concatenate([[differences.sum()], 2 * np.concatenate(parts) - differences.sum()])
    return float((np.abs(sums) >= abs(differences.sum()) - 1e-9 * np.abs(differences).sum()).mean())
