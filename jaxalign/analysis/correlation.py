"""Correlations with intervals and p-values, and what many tests at once do to the p-values."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from jaxalign.analysis.estimates import Estimate, too_few
from jaxalign.analysis.permutations import block_orders, smallest_p

FEWEST_UNITS = 8
"""With fewer units, a correlation is not given."""
FEWEST_OF_A_LEVEL = 2
"""With fewer units of one of two levels, a correlation has no interval."""
USABLE = 0.05
"""A test that can give no p-value under this one is not made."""

METHODS = ("spearman", "pearson")


def correlation(
    x: np.ndarray,
    y: np.ndarray,
    method: str = "spearman",
    *,
    blocks: Sequence[object] | None = None,
    seed: int = 0,
    level: float = 0.95,
) -> Estimate:
    """Return the correlation of x [n] and y [n]; see `correlations`."""
    return correlations(np.asarray(x)[:, None], np.asarray(y)[:, None], method, blocks=blocks, seed=seed, level=level)[
        0
    ][0]


def correlations(
    x: np.ndarray,
    y: np.ndarray,
    method: str = "spearman",
    *,
    blocks: Sequence[object] | None = None,
    seed: int = 0,
    level: float = 0.95,
) -> list[list[Estimate]]:
    """Return the correlation of each column of x with each column of y, by [column of x][column of y].

    The p-value is that of a permutation test. The interval is that of the jackknife of Fisher's z (Hinkley, 1978, doi
    10.1093/biomet/65.1.13). Both move whole blocks. Spearman's correlation with an x of two levels, as designed targets
    have, is a multiple of the Mann-Whitney statistic; without blocks its interval is Newcombe's (2006, doi
    10.1002/sim.2324, method 5), which stays right where the levels are almost or quite apart. A unit with NaN in x or y
    is missing.

    Args:
        x: [n, V] numbers of the units, such as the ten scores of each adapter's target.
        y: [n, C] other numbers of them, such as each adapter's mean harm by category.
        method: `spearman` (ranks, with means for ties) or `pearson`.
        blocks: [n] the block of each unit (see `block_orders`); None makes each unit its own.
        seed: for orders.
        level: the part of such intervals that hold the true correlation.
    """
    if method not in METHODS:
        raise ValueError(f"no such method: {method}")
    x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
    names = None if blocks is None else list(blocks)
    there = np.logical_not(np.isnan(x).any(axis=1, keepdims=True))
    found: list[list[Estimate]] = [[Estimate(n=0)] * y.shape[1] for _ in range(x.shape[1])]
    patterns = there & ~np.isnan(y)
    for known in np.unique(patterns, axis=1).T:  # columns that lack the same units are computed together
        columns = np.flatnonzero((patterns == known[:, None]).all(0))
        kept = None if names is None else [name for name, one in zip(names, known, strict=True) if one]
        part = _complete(x[known], y[known][:, columns], method, kept, seed, level)
        for row, estimates in zip(found, part, strict=True):
            for column, estimate in zip(columns, estimates, strict=True):
                row[column] = replace(estimate, missing=int((~known).sum()))
    return found


def _complete(
    x: np.ndarray, y: np.ndarray, method: str, blocks: list[object] | None, seed: int, level: float
) -> list[list[Estimate]]:
    n = len(x)
    members = [np.array([unit]) for unit in range(n)] if blocks is None else _members(blocks)
    clusters = None if blocks is None else len(members)
    if len(members) < FEWEST_UNITS:
        few = too_few(len(members), FEWEST_UNITS, "units" if blocks is None else "blocks")
        return [[replace(few, n=n, clusters=clusters)] * y.shape[1] for _ in range(x.shape[1])]
    a, b = _standard(x, method), _standard(y, method)
    r = a.T @ b
    at_least = np.zeros(r.shape)
    orders = block_orders(n, blocks, seed)
    for some in np.array_split(orders, max(1, orders.size * x.shape[1] // 2_000_000)):
        at_least += (np.abs(np.einsum("pnv,nc->pvc", a[some], b, optimize=True)) >= np.abs(r) - 1e-9).sum(0)
    least = [smallest_p(column, blocks) for column in x.T]
    low, high = _jackknife_limits(x, y, r, method, members, level)
    for v, column in enumerate(x.T if method == "spearman" and len(members) == n else ()):
        if _units_of_smaller_level(column) >= FEWEST_OF_A_LEVEL:
            low[v], high[v] = _two_level_limits(column, y, level)

    def one(v: int, c: int) -> Estimate:
        if np.isnan(r[v, c]):
            return Estimate(n=n, clusters=clusters, reason="one of the two is constant")
        usable = least[v] < USABLE
        wide = bool(np.isnan(low[v, c]))
        reasons = [
            *([] if usable else [f"no p-value under {least[v]:.2g} is possible"]),
            *(["too little differs for an interval"] if wide else []),
        ]
        return Estimate(
            estimate=float(np.clip(r[v, c], -1, 1)),
            low=None if wide else float(low[v, c]),
            high=None if wide else float(high[v, c]),
            n=n,
            clusters=clusters,
            p=float(at_least[v, c] / len(orders)) if usable else None,
            reason="; ".join(reasons) or None,
        )

    return [[one(v, c) for c in range(y.shape[1])] for v in range(x.shape[1])]


def _jackknife_limits(
    x: np.ndarray, y: np.ndarray, r: np.ndarray, method: str, members: list[np.ndarray], level: float
) -> tuple[np.ndarray, np.ndarray]:
    """Return the lower and the upper limits of r [V, C] by Student's t for Fisher's z, each block left out once.

    They are NaN where r or a correlation without a block is not known, or if none of these differs from another.
    """
    from scipy.stats import t

    n, count = len(x), len(members)
    without = np.stack(
        [_standard(np.delete(x, some, 0), method).T @ _standard(np.delete(y, some, 0), method) for some in members]
    )
    # A perfect order of ranks is taken for one halfway to the nearest other order, since z has no end.
    most = 1 - (6 / (n * (n * n - 1)) if method == "spearman" else 1e-12)
    z = np.arctanh(np.clip(without, -most, most))
    error = np.sqrt((count - 1) / count * np.square(z - z.mean(0)).sum(0))
    wide = t.ppf((1 + level) / 2, count - 1) * np.where(error > 1e-9, error, np.nan)
    middle = np.arctanh(np.clip(r, -most, most))
    return np.tanh(middle - wide), np.tanh(middle + wide)


def _units_of_smaller_level(column: np.ndarray) -> int:
    """Return how many units have the rarer one of two levels; 0 if there are not two."""
    levels, counts = np.unique(column, return_counts=True)
    return int(counts.min()) if len(levels) == 2 else 0


def _two_level_limits(column: np.ndarray, y: np.ndarray, level: float) -> tuple[np.ndarray, np.ndarray]:
    """Return the lower and the upper limits [C] of Spearman's correlation of a column of two levels [n] with y [n, C].

    With A, how often a unit of the upper level exceeds one of the lower (ties count half), the correlation is
    K (2 A - 1), where K depends on the sizes of the levels and on the ties of y alone. The limits of A are the values
    from which A is as far as z standard errors, those at the limit itself.
    """
    from scipy.stats import norm, rankdata

    upper = column == column.max()
    n, m = len(column), int(upper.sum())
    ranks = rankdata(y, axis=0)
    above = (ranks[upper].sum(0) - m * (m + 1) / 2) / (m * (n - m))
    spread = np.sqrt(np.square(ranks - ranks.mean(0)).sum(0))
    most = np.sqrt(m * (n - m) * n) / 2 / np.where(spread > 0, spread, np.nan)
    limits = np.linspace(0, 1, 10_001) ** 2  # dense near 0, where the standard error rises steeply
    variance = 1 + (n / 2 - 1) * ((1 - limits) / (2 - limits) + limits / (1 + limits))
    seen = limits + norm.ppf((1 + level) / 2) * np.sqrt(limits * (1 - limits) / (m * (n - m)) * variance)
    rising = slice(0, int(seen.argmax()) + 1)
    low, high = (np.interp(one, seen[rising], limits[rising]) for one in (above, 1 - above))
    return np.maximum(most * (2 * low - 1), -1), np.minimum(most * (1 - 2 * high), 1)


def _standard(values: np.ndarray, method: str) -> np.ndarray:
    """Return values [n, columns], or their ranks, with mean 0 and length 1; NaN where a column is constant."""
    from scipy.stats import rankdata

    values = rankdata(values, axis=0) if method == "spearman" else values
    centred = values - values.mean(0)
    length = np.sqrt(np.square(centred).sum(0))
    return centred / np.where(length > 1e-9 * np.abs(values).max(0, initial=1e-300), length, np.nan)


def _members(blocks: list[object]) -> list[np.ndarray]:
    members: dict[object, list[int]] = {}
    for unit, block in enumerate(blocks):
        members.setdefault(block, []).append(unit)
    return [np.array(units) for units in members.values()]


def benjamini_hochberg(p: Sequence[float | None]) -> list[float | None]:
    """Return the p-values of a family of tests, corrected so that the share of false findings stays under a limit.

    A finding is a q-value of at most that limit (Benjamini and Hochberg, 1995). A test that was not made (None) is no
    member of the family, and stays None.

    >>> benjamini_hochberg([0.01, None, 0.04, 0.03])
    [0.03, None, 0.04, 0.04]
    """
    from scipy.stats import false_discovery_control

    made = [one for one in p if one is not None]
    corrected = iter(false_discovery_control(made).tolist() if made else [])
    return [None if one is None else next(corrected) for one in p]
