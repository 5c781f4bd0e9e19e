"""Statistics of results."""

from collections.abc import Sequence

import numpy as np

DRAWS = 2000


def bootstrap_interval(values: Sequence[float], seed: int = 0, level: float = 0.95) -> tuple[float, float] | None:
    """Return the percentile bootstrap interval (low, high) of a mean (Efron, 1979), or None if there are no values.

    >>> low, high = bootstrap_interval([0, 1] * 50)
    >>> low < 0.5 < high
    True
    """
    if not len(values):
        return None
    array = np.asarray(values, np.float64)
    random = np.random.Generator(np.random.PCG64(seed))
    means = array[random.integers(0, len(array), (DRAWS, len(array)))].mean(-1)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
