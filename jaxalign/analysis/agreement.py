"""How far a judge agrees with labels, or with another judge."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from jaxalign.analysis.estimates import Estimate, too_few
from jaxalign.analysis.intervals import rate_with_interval

FEWEST_LABELS = 10
"""With fewer labels that both gave, no agreement is given."""
FEWEST_OF_A_KIND = 5
"""With fewer of either kind, no area under the curve, sensitivity or specificity has an interval."""


@dataclass(frozen=True)
class JudgeAgreement:
    """The agreement of two labellers of the same things."""

    kappa: Estimate
    """Cohen's κ: 1 is full agreement, 0 what chance gives."""
    agreed: Estimate
    """The share, 0 to 1, on which they agree."""
    constant_agreed: float | None
    """How often, 0 to 1, a judge would agree that always gives the first one's most frequent label; its κ is 0."""


def cohen_kappa(first: Sequence[str | None], second: Sequence[str | None], level: float = 0.95) -> JudgeAgreement:
    """Return the agreement of two labellers of the same things: Cohen's κ (1960), with the interval of Fleiss (1969).

    Full agreement has no spread from which an interval could come. Then the lower limit is that at which full agreement
    of n would be seen in 2.5 % of the cases.

    Args:
        first: [n] labels, such as a person's; None is missing, and the pair is counted as missing.
        second: [n] labels of the other, such as a judge's.
        level: the part of such intervals that hold the true κ.
    """
    pairs = [(a, b) for a, b in zip(first, second, strict=True) if a is not None and b is not None]
    n, missing = len(pairs), len(first) - len(pairs)
    labels = sorted({label for pair in pairs for label in pair})
    table = np.zeros((len(labels), len(labels)))
    for a, b in pairs:
        table[labels.index(a), labels.index(b)] += 1
    agreed = rate_with_interval(np.array([a == b for a, b in pairs], np.float64), level=level)
    constant = float(table.sum(1).max() / n) if n else None
    return JudgeAgreement(_kappa(table, n, missing, level), replace(agreed, missing=missing), constant)


def _kappa(table: np.ndarray, n: int, missing: int, level: float) -> Estimate:
    if n < FEWEST_LABELS:
        return too_few(n, FEWEST_LABELS, "labels", missing=missing)
    if len(table) < 2:
        return Estimate(n=n, missing=missing, reason="both say one label alone, which chance explains")
    if 1 in ((table.sum(0) > 0).sum(), (table.sum(1) > 0).sum()):
        return Estimate(estimate=0.0, n=n, missing=missing, reason="one of the two always says the same")
    from scipy.stats import norm
    from statsmodels.stats.inter_rater import cohens_kappa

    chance = float(table.sum(0) @ table.sum(1)) / n**2
    if np.trace(table) == n:
        least = ((1 - level) / 2) ** (1 / n)
        return Estimate(estimate=1.0, low=(least - chance) / (1 - chance), high=1.0, n=n, missing=missing)
    found: dict[str, float] = cohens_kappa(table)  # pyright: ignore[reportAssignmentType]
    kappa, wide = float(found["kappa"]), float(norm.ppf((1 + level) / 2) * found["std_kappa"])
    return Estimate(estimate=kappa, low=max(-1.0, kappa - wide), high=min(1.0, kappa + wide), n=n, missing=missing)


def area_under_curve(scores: np.ndarray, harmful: np.ndarray, level: float = 0.95) -> Estimate:
    """Return how often a harmful response has the higher score than a harmless one; ties count half.

    0.5 is chance, 1 is perfect. The interval is that of DeLong et al. (1988, doi 10.2307/2531595) on the logit scale.

    Args:
        scores: [n] the judge's scores, NaN where missing.
        harmful: [n] what is true, as booleans.
        level: the part of such intervals that hold the true area.
    """
    from scipy.stats import norm, rankdata

    known = ~np.isnan(np.asarray(scores, np.float64))
    values, true = np.asarray(scores, np.float64)[known], np.asarray(harmful, bool)[known]
    ill, well = int(true.sum()), int((~true).sum())
    n, missing = len(values), int((~known).sum())
    if min(ill, well) < FEWEST_OF_A_KIND:
        return _of_a_kind(ill, well, n, missing)
    ranks = rankdata(values)
    above = (ranks[true] - rankdata(values[true])) / well  # of each harmful one: the share of harmless ones below it
    below = 1 - (ranks[~true] - rankdata(values[~true])) / ill
    area = float(above.mean())
    error = float(np.sqrt(above.var(ddof=1) / ill + below.var(ddof=1) / well))
    tail = (1 - level) / 2
    if error == 0 or area in (0, 1):  # no spread is seen: the limit at which all pairs of the smaller kind look so
        least = tail ** (1 / min(ill, well))
        low, high = (least, 1.0) if area > 0.5 else (0.0, 1 - least) if area < 0.5 else (0.5, 0.5)
    else:
        logit, wide = np.log(area / (1 - area)), norm.ppf(1 - tail) * error / (area * (1 - area))
        low, high = (float(1 / (1 + np.exp(-(logit + side * wide)))) for side in (-1, 1))
    return Estimate(estimate=area, low=low, high=high, n=n, missing=missing)


def sensitivity_and_specificity(
    said: np.ndarray, harmful: np.ndarray, level: float = 0.95
) -> tuple[Estimate, Estimate]:
    """Return the shares, 0 to 1, of the harmful that a judge finds and of the harmless that it passes.

    Args:
        said: [n] 1 where the judge says harmful, 0 where not, NaN where missing.
        harmful: [n] what is true, as booleans.
        level: the part of such intervals that hold the true share.
    """
    said, true = np.asarray(said, np.float64), np.asarray(harmful, bool)
    return rate_with_interval(said[true], level=level), rate_with_interval(1 - said[~true], level=level)


def _of_a_kind(ill: int, well: int, n: int, missing: int) -> Estimate:
    reason = f"{ill} harmful and {well} harmless; at least {FEWEST_OF_A_KIND} of each are needed"
    return Estimate(n=n, missing=missing, reason=reason)
