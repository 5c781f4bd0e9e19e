"""How well ten scores fit the scores of a target: the error, and correlations that show what an error hides."""

from collections.abc import Sequence

import numpy as np

from jaxalign.values.targets import HIGHEST, LOWEST


def profile_fit(scores: Sequence[float | None], target: Sequence[float] | None) -> dict[str, float | None]:
    """Return `nmse`, `nmse_centred`, `pearson` and `spearman` of scores against a target (1..6, in the same order).

    All four are None if there is no target or any score is None. A correlation is None if one profile is flat.
    """
    known = [score for score in scores if score is not None]
    if target is None or len(known) < len(scores):
        return dict.fromkeys(("nmse", "nmse_centred", "pearson", "spearman"))
    return {
        "nmse": nmse(known, target),
        "nmse_centred": nmse_centred(known, target),
        "pearson": pearson(known, target),
        "spearman": pearson(_ranks(known), _ranks(target)),
    }


def nmse(scores: Sequence[float], target: Sequence[float]) -> float:
    """Return the mean squared difference of two profiles, both scaled from 1..6 to 0..1 (Choi et al. 2025).

    >>> round(nmse([2] * 10, [6] + [1] * 9), 4)
    0.1
    """
    return float(np.mean((_scaled(scores) - _scaled(target)) ** 2))


def nmse_centred(scores: Sequence[float], target: Sequence[float]) -> float:
    """Return the NMSE after each profile's own mean is subtracted: it compares the shapes and ignores the levels."""
    difference = _scaled(scores) - _scaled(target)
    return float(np.var(difference))


def best_constant_nmse(target: Sequence[float]) -> float:
    """Return the NMSE of the best constant profile, which is the variance of the target scaled to 0..1.

    >>> round(best_constant_nmse([6] + [1] * 9), 4)
    0.09
    """
    return float(np.var(_scaled(target)))


def pearson(scores: Sequence[float], target: Sequence[float]) -> float | None:
    """Return the correlation of two profiles, -1..1, or None if one of them is flat (to nine decimals)."""
    first, second = (np.round(np.asarray(profile, np.float64), 9) for profile in (scores, target))
    if np.ptp(first) == 0 or np.ptp(second) == 0:
        return None
    first, second = first - first.mean(), second - second.mean()
    return float(first @ second / np.sqrt((first @ first) * (second @ second)))


def _ranks(scores: Sequence[float]) -> list[float]:
    """Return the ranks, from 0; scores that are equal to nine decimals share their mean rank."""
    rounded = np.round(np.asarray(scores, np.float64), 9)
    below, equal = rounded[:, None] > rounded, rounded[:, None] == rounded
    return (below.sum(axis=1) + (equal.sum(axis=1) - 1) / 2).tolist()


def _scaled(scores: Sequence[float]) -> np.ndarray:
    return (np.asarray(scores, np.float64) - LOWEST) / (HIGHEST - LOWEST)
