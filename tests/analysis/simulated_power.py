"""How often a design finds a planted effect, by simulation, which the plans of `jaxalign.analysis.power` must meet."""

import numpy as np

from jaxalign.analysis.correlation import benjamini_hochberg
from jaxalign.analysis.estimates import Estimate
from jaxalign.analysis.intervals import rate_with_interval
from jaxalign.analysis.permutations import MOST_ORDERS
from jaxalign.analysis.power import _null as null_of
from jaxalign.analysis.power import _unit as unit


def simulated_power(
    x: np.ndarray,
    outcomes: int,
    effect: float,
    method: str = "spearman",
    *,
    effects: int = 1,
    simulations: int = 300,
    alpha: float = 0.05,
    seed: int = 0,
) -> Estimate:
    """Return how often, 0 to 1, a planted effect is found among the tests of each predictor against each outcome.

    Each simulation draws normal noise for each outcome, adds effects, each of one predictor on one outcome, and
    corrects all p-values together. The p-values are those of permutation tests for ranks, and of t-tests for Pearson's.

    Args:
        x: [n, V] the predictors; they take turns in having the effects.
        outcomes: how many outcomes, such as categories.
        effect: in standard deviations of the noise, between a predictor's lowest and highest number.
        method: see `correlations`.
        effects: how many effects there are at once, each on an outcome of its own.
        simulations: how many.
        alpha: the share of false findings that is allowed.
        seed: for the noise.
    """
    from scipy.stats import rankdata, t

    x = np.asarray(x, np.float64)
    random = np.random.Generator(np.random.PCG64(seed))
    shares = (x - x.min(0)) / np.where(np.ptp(x, axis=0) > 0, np.ptp(x, axis=0), 1)
    ranked = method == "spearman"
    units = unit(rankdata(x, axis=0) if ranked else x)  # [n, V]
    null = null_of(units, random, MOST_ORDERS - 1)  # noise has no ties, so one null distribution serves all simulations
    found = []
    for number in range(simulations):
        causes = [(number + place) % x.shape[1] for place in range(effects)]
        y = random.normal(size=(len(x), outcomes))
        y[:, :effects] += effect * shares[:, causes]
        r = np.abs(units.T @ unit(rankdata(y, axis=0) if ranked else y))  # [V, outcomes]
        if ranked:
            above = [len(null) - np.searchsorted(null[:, v], r[v] - 1e-9) for v in range(len(r))]
            p = (1 + np.array(above)) / MOST_ORDERS
        else:
            p = 2 * t.sf(r * np.sqrt((len(x) - 2) / np.maximum(1 - r**2, 1e-12)), len(x) - 2)
        q = np.reshape(np.array(benjamini_hochberg(p.ravel().tolist()), np.float64), p.shape)
        found += [q[cause, place] <= alpha for place, cause in enumerate(causes)]
    return rate_with_interval(np.array(found, np.float64), np.arange(len(found)) // effects)
