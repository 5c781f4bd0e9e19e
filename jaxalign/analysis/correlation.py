"""Correlations with intervals and p-values, and what many tests at once do to the p-values."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from jaxalign.analysis.estimates import Estimate, too_few
from jaxalign.analysis.intervals import narrow_tail
from jaxalign.analysis.permutations import block_orders, smallest_p
from jaxalign.analysis.statistics import DRAWS

FEWEST_UNITS = 8
"""With fewer units, a correlation is not given."""
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

    The p-value is that of a permutation test. The interval is the bootstrap's, corrected for bias and skewness (BCa:
    Efron, 1987, doi 10.1080/01621459.1987.10478410). Both move whole blocks. A unit with NaN in x or y is missing.

    Args:
        x: [n, V] numbers of the units, such as the ten scores of each adapter's target.
        y: [n, C] other numbers of them, such as each adapter's mean harm by category.
        method: `spearman` (ranks, with means for ties) or `pearson`.
        blocks: [n] the block of each unit (see `block_orders`); None makes each unit its own.
        seed: for orders and draws.
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
    low, high = _limits(x, y, r, method, members, seed, level)

    def one(v: int, c: int) -> Estimate:
        if np.isnan(r[v, c]):
            return Estimate(n=n, clusters=clusters, reason="one of the two is constant")
        usable = least[v] < USABLE
        wide = bool(np.isnan(low[v, c]))
        reasons = [
            *([] if usable else [f"no p-value under {least[v]:.2g} is possible"]),
            *(["too few units differ for an interval"] if wide else []),
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


def _limits(
    x: np.ndarray, y: np.ndarray, r: np.ndarray, method: str, members: list[np.ndarray], seed: int, level: float
) -> tuple[np.ndarray, np.ndarray]:
    """Return the lower and the upper BCa limits [V, C]; NaN where over 1 % of the resamples are constant."""
    from scipy.stats import norm

    random = np.random.Generator(np.random.PCG64(seed))
    count = len(members)
    times = random.multinomial(count, np.full(count, 1 / count), DRAWS)  # how often a block is in each resample
    once = np.ones((count, count)) - np.eye(count)  # each block left out
    owner = np.zeros(len(x), int)
    for number, units in enumerate(members):
        owner[units] = number
    sample = _resampled_correlations(x, y, times[:, owner], method)
    without = _resampled_correlations(x, y, once[:, owner], method)
    away = np.nan_to_num(without.mean(0) - without)
    skewness = (away**3).sum(0) / (6 * np.maximum((away**2).sum(0), 1e-12) ** 1.5)
    below = (sample < r - 1e-12).mean(0) / 2 + (sample <= r + 1e-12).mean(0) / 2
    bias = norm.ppf(np.clip(below, 0.01, 0.99))
    # Ties, which every resample has, already make the bootstrap of ranks wide enough.
    tail = norm.ppf((1 - level) / 2 if method == "spearman" else narrow_tail(len(members), level))
    undefined = np.isnan(sample).mean(0) > 0.01
    ordered = np.sort(sample, 0)  # NaN stands last

    def limit(z: float) -> np.ndarray:
        moved = bias + (bias + z) / (1 - skewness * (bias + z))
        place = norm.cdf(moved) * ((~np.isnan(sample)).sum(0) - 1)
        first, second = (np.maximum(end(place), 0).astype(int)[None] for end in (np.floor, np.ceil))
        one, other = (np.take_along_axis(ordered, row, 0)[0] for row in (first, second))
        return np.where(undefined | np.isnan(r), np.nan, one + (place - first[0]) * (other - one))

    return limit(float(tail)), limit(float(-tail))


def _resampled_correlations(x: np.ndarray, y: np.ndarray, times: np.ndarray, method: str) -> np.ndarray:
    """Return the correlations [draws, V, C] of samples in which each unit is as often as `times` [draws, n] says."""
    both = np.concatenate([x, y], 1)
    columns = x.shape[1]
    rows = max(1, 500_000 // both.size)  # as many draws at once as stay in the cache
    parts = np.split(times.astype(np.float64), range(rows, len(times), rows))
    if method == "spearman":
        ranks = _weighted_ranks(both)
        return np.concatenate([_weighted(both, ranks(part), part, columns) for part in parts])
    return np.concatenate([_weighted(both, np.broadcast_to(both, (len(p), *both.shape)), p, columns) for p in parts])


def _weighted(both: np.ndarray, values: np.ndarray, times: np.ndarray, columns: int) -> np.ndarray:
    """Return the correlations [draws, V, C] of the first `columns` of values [draws, n, V + C] with the others."""
    mean = np.einsum("dn,dnk->dk", times, values) / times.sum(1, keepdims=True)
    centred = values - mean[:, None]
    spread = np.einsum("dn,dnk->dk", times, np.square(centred))
    a, b = centred[..., :columns] * times[..., None], centred[..., columns:]
    size = np.sqrt(spread[:, :columns, None] * spread[:, None, columns:])
    return a.transpose(0, 2, 1) @ b / np.where(size > 1e-12 * np.square(both).max(initial=1e-300), size, np.nan)


def _weighted_ranks(values: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """Return a function of how often each unit is in samples, `times` [draws, n]: the ranks [draws, n, columns] of
    values [n, columns] in them, with means for ties."""
    from scipy.stats import rankdata

    column = np.arange(values.shape[1])
    order = values.argsort(0, kind="stable")
    # Of each unit the numbers of units before it and up to it, as places in the cumulative sums of all columns.
    before = (rankdata(values, "min", axis=0).astype(int) - 1) * len(column) + column
    upto = rankdata(values, "max", axis=0).astype(int) * len(column) + column

    def ranks(times: np.ndarray) -> np.ndarray:
        sums = np.zeros((len(times), len(values) + 1, len(column)))
        np.cumsum(times[:, order], axis=1, out=sums[:, 1:])
        flat = sums.reshape(len(times), -1)
        return (flat[:, before] + flat[:, upto]) / 2 + 0.5

    return ranks


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
