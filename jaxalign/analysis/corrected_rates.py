"""Rates freed from the error of the judge that gave them, with the uncertainty of that error."""

from dataclasses import dataclass, replace

import numpy as np

from jaxalign.analysis.agreement import FEWEST_OF_A_KIND
from jaxalign.analysis.estimates import Estimate

CORRECTION_DRAWS = 20_000


@dataclass(frozen=True)
class JudgeError:
    """How a judge did on labelled responses; all are counts of responses."""

    found: int
    """Harmful, and called harmful."""
    overlooked: int
    """Harmful, and called harmless."""
    passed: int
    """Harmless, and called harmless."""
    accused: int
    """Harmless, and called harmful."""


def judge_error(said: np.ndarray, harmful: np.ndarray) -> JudgeError:
    """Count a judge's right and wrong calls.

    Args:
        said: [n] 1 where the judge says harmful, 0 where not, NaN where missing, which is not counted.
        harmful: [n] what is true, as booleans.
    """
    said, true = np.asarray(said, np.float64), np.asarray(harmful, bool)
    counts = [int(((said == call) & (true == kind)).sum()) for call, kind in ((1, 1), (0, 1), (0, 0), (1, 0))]
    return JudgeError(*counts)


def corrected_rate(rate: Estimate, error: JudgeError, *, seed: int = 0, level: float = 0.95) -> Estimate:
    """Return the true rate behind a judge's rate (Rogan and Gladen, 1978, doi 10.1093/oxfordjournals.aje.a112510).

    It is (rate + specificity - 1) / (sensitivity + specificity - 1), kept in 0..1. Its interval comes from draws of all
    three: the judge's rate as its own interval says, sensitivity and specificity from Beta distributions over their
    counts. So a judge that was measured on few labels gives a wide interval.

    Args:
        rate: a judge's rate with its interval, 0 to 1, such as `flagged_rate` gives.
        error: how the judge did on labelled responses, which must be like the judged ones.
        seed: for the draws.
        level: the part of such intervals that hold the true rate.
    """
    random = np.random.Generator(np.random.PCG64(seed))
    tail = (1 - level) / 2
    measured = _judge_draws(error, random, tail)
    if isinstance(measured, str) or rate.estimate is None or rate.low is None or rate.high is None:
        return _silent(rate, measured if isinstance(measured, str) else None)
    sensitivity, specificity = measured
    true = (_draws_of(rate, random, level) + specificity - 1) / (sensitivity + specificity - 1)
    low, high = np.clip(np.quantile(true, [tail, 1 - tail]), 0, 1)
    return replace(rate, estimate=_solved(rate.estimate, error), low=float(low), high=float(high))


def _judge_draws(error: JudgeError, random: np.random.Generator, tail: float) -> tuple[np.ndarray, np.ndarray] | str:
    """Return draws of sensitivity and specificity of a judge that is better than a coin, or why there are none."""
    ill, well = error.found + error.overlooked, error.passed + error.accused
    if min(ill, well) < FEWEST_OF_A_KIND:
        measured = f"the judge was measured on {ill} harmful and {well} harmless responses"
        return f"{measured}; at least {FEWEST_OF_A_KIND} of each are needed"
    sensitivity = random.beta(error.found + 0.5, error.overlooked + 0.5, CORRECTION_DRAWS)
    specificity = random.beta(error.passed + 0.5, error.accused + 0.5, CORRECTION_DRAWS)
    if np.quantile(sensitivity + specificity, tail) <= 1:
        return "the judge may be no better than a coin, so its rate says nothing"
    usable = sensitivity + specificity > 1
    again = random.choice(np.flatnonzero(usable), CORRECTION_DRAWS)
    return sensitivity[again], specificity[again]


def _silent(figure: Estimate, reason: str | None) -> Estimate:
    return replace(figure, estimate=None, low=None, high=None, p=None, q=None, reason=reason or figure.reason)


def _shares(error: JudgeError) -> tuple[float, float]:
    return error.found / (error.found + error.overlooked), error.passed / (error.passed + error.accused)


def _solved(rate: float, error: JudgeError) -> float:
    sensitivity, specificity = _shares(error)
    return float(np.clip((rate + specificity - 1) / max(sensitivity + specificity - 1, 1e-9), 0, 1))


def _draws_of(rate: Estimate, random: np.random.Generator, level: float) -> np.ndarray:
    """Return draws of the judge's rate from a Beta distribution as wide as the rate's interval, clusters included."""
    from scipy.stats import norm

    assert rate.estimate is not None and rate.low is not None and rate.high is not None
    spread = (rate.high - rate.low) / (2 * norm.ppf((1 + level) / 2))
    middle = (rate.high + rate.low) / 2
    size = max(middle * (1 - middle) / max(spread**2, 1e-12) - 1, 1.0)
    ones = rate.estimate * max(size - 1, 0.0)
    return random.beta(ones + 0.5, max(size - 1, 0.0) - ones + 0.5, CORRECTION_DRAWS)
