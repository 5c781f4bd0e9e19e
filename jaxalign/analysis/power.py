"""What a design can show, before anything is trained: the effects that it would see, and those that it would not.

An effect is a difference, in standard deviations of the noise, between a predictor's lowest and highest number.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from jaxalign.analysis.correlation import FEWEST_UNITS
from jaxalign.analysis.permutations import MOST_ORDERS, smallest_p
from jaxalign.analysis.regression import Collinearity, collinearity


@dataclass(frozen=True)
class DesignPlan:
    """What a design of n units can show when each predictor is tested against each outcome."""

    n: int
    tests: int
    """How many tests are corrected together: predictors × outcomes."""
    power: float
    """How often, 0 to 1, the smallest effect is seen."""
    smallest_effects: dict[str, float | None]
    """By predictor; None where no effect, however strong, would be seen."""
    smallest_ps: dict[str, float]
    """The smallest two-sided p-value of a permutation test, by predictor, before the correction."""
    collinearity: Collinearity
    blocks: int | None = None
    """How many blocks of units that resemble each other there are; None if each unit is its own."""


def smallest_effect(
    x: np.ndarray, method: str = "spearman", *, tests: int = 1, alpha: float = 0.05, power: float = 0.8, seed: int = 0
) -> float | None:
    """Return the smallest effect of x that a correlation shows with the given power, or None if none would show.

    Only one of the `tests` tests is taken to have an effect, so the correction of Benjamini and Hochberg asks for a
    p-value of `alpha` / `tests`. For ranks it is simulated; for Pearson's it is that of a t-test of a slope
    (noncentral t).

    Args:
        x: [n] the predictor.
        method: see `correlations`.
        tests: how many tests are corrected together.
        alpha: the share of false findings that is allowed.
        power: how often the effect is seen, 0 to 1.
        seed: for the noise.
    """
    from scipy.optimize import brentq
    from scipy.stats import nct, rankdata, t

    x = np.asarray(x, np.float64)
    n, spread = len(x), float(np.ptp(x)) if len(x) else 0.0
    if n < FEWEST_UNITS or spread == 0 or smallest_p(x) > alpha / tests:
        return None
    per_effect = float(np.sqrt(np.square(x - x.mean()).sum()) / spread)
    limit = float(t.ppf(1 - alpha / tests / 2, n - 2))
    shift = brentq(lambda shift: nct.sf(limit, n - 2, shift) - power, 0, 99)
    exact = float(shift) / per_effect  # pyright: ignore[reportArgumentType]
    if method == "pearson":
        return exact
    random = np.random.Generator(np.random.PCG64(seed))
    shares, ranks = (x - x.min()) / spread, _unit(rankdata(x)[:, None])
    # At most this share of the orders may give as much: an order of the test itself counts as one of them.
    share = (np.floor(alpha / tests * MOST_ORDERS) - 1) / (MOST_ORDERS - 1)
    null = _null(ranks, random, 100_000)[:, 0]
    least = null[len(null) - 1 - int(share * len(null))] + 1e-9
    noise = random.normal(size=(2000, n))

    def seen(effect: float) -> float:
        return float((np.abs(_unit(rankdata(noise + effect * shares, axis=1).T).T @ ranks) >= least).mean())

    low, high = 0.0, 4 * exact
    if seen(high) < power:
        return None
    while high - low > 0.01 * exact:
        middle = (low + high) / 2
        low, high = (low, middle) if seen(middle) >= power else (middle, high)
    return high


def design_plan(
    x: np.ndarray,
    names: Sequence[str],
    outcomes: int,
    *,
    blocks: Sequence[object] | None = None,
    alpha: float = 0.05,
    power: float = 0.8,
) -> DesignPlan:
    """Return what a design can show.

    How much of their noise the units of a block share is not known before the units are there. So the smallest effects
    are those that are seen even if they share all of it: each block is one unit, with the means of its predictors.

    Args:
        x: [n, V] the predictors, such as the ten scores of each adapter's target.
        names: [V] their names.
        outcomes: how many outcomes each is tested against, such as categories.
        blocks: [n] the block of each unit (see `block_orders`); None makes each unit its own.
        alpha: the share of false findings that is allowed.
        power: how often, 0 to 1, the smallest effect is seen.
    """
    x = np.asarray(x, np.float64)
    tests = len(names) * outcomes
    units = x if blocks is None else _block_means(x, blocks)
    least = {name: smallest_p(x[:, v], blocks) for v, name in enumerate(names)}
    known: dict[tuple[float, ...], float | None] = {}
    effects: dict[str, float | None] = {}
    for name, column, mean in zip(names, x.T, units.T, strict=True):
        # Predictors with the same numbers in another order can show the same.
        if (numbers := tuple(sorted(mean))) not in known:
            known[numbers] = smallest_effect(mean, tests=tests, alpha=alpha, power=power)
        seen = known[numbers] if least[name] <= alpha / tests else None
        # Means lie closer together than the numbers themselves.
        effects[name] = None if seen is None else seen * float(np.ptp(column) / np.ptp(mean))
    count = None if blocks is None else len(units)
    return DesignPlan(len(x), tests, power, effects, least, collinearity(x, names), count)


def plan_lines(plan: DesignPlan) -> list[str]:
    """Return a plan as lines for the terminal."""
    none = [name for name, effect in plan.smallest_effects.items() if effect is None]
    seen = [effect for effect in plan.smallest_effects.values() if effect is not None]
    lines = [f"{plan.n} units, {plan.tests} tests corrected together (Benjamini and Hochberg)"]
    if plan.blocks is not None:
        lines.append(
            f"{plan.blocks} blocks of units that resemble each other, such as targets near to one extreme target: each "
            "block counts as one unit here, as if its units shared all of their noise"
        )
    if seen:
        lines.append(
            f"smallest effect seen with {100 * plan.power:.0f} % power: {_range(seen, '.2f')} standard deviations "
            "of the noise, from a predictor's lowest to its highest"
        )
    if none:
        lines.append(f"no effect, however strong, would be seen of: {', '.join(none)}")
    lines.append(f"smallest p-value possible: {_range(list(plan.smallest_ps.values()), '.2g')}")
    factors = list(plan.collinearity.inflation.values())
    if factors:
        said = _range(factors, ".3g")
        worst = max(plan.collinearity.inflation, key=lambda name: plan.collinearity.inflation[name])
        lines.append(f"variance inflation: {said}" + (f", highest for {worst}" if " to " in said else ""))
    lines += [f"correlated: {a} and {b}, {r:.2f}" for (a, b), r in plan.collinearity.pairs.items()]
    return lines


def _range(values: list[float], form: str) -> str:
    low, high = f"{min(values):{form}}", f"{max(values):{form}}"
    return low if low == high else f"{low} to {high}"


def _block_means(x: np.ndarray, blocks: Sequence[object]) -> np.ndarray:
    """Return the means of x [n, V] over each block, [blocks, V]."""
    places = {block: place for place, block in enumerate(dict.fromkeys(blocks))}
    number = np.array([places[block] for block in blocks], np.int64)
    return np.stack([x[number == place].mean(0) for place in range(len(places))]) if len(places) else x


def _unit(values: np.ndarray) -> np.ndarray:
    centred = values - values.mean(0)
    return centred / np.maximum(np.sqrt(np.square(centred).sum(0)), 1e-12)


def _null(units: np.ndarray, random: np.random.Generator, orders: int) -> np.ndarray:
    """Return the absolute rank correlations [orders, V] of `units` [n, V] with random orders, each column sorted."""
    drawn = random.permuted(np.tile(np.arange(len(units)), (orders, 1)), axis=1)
    return np.sort(np.abs(_unit(drawn.T.astype(np.float64)).T @ units), axis=0)
