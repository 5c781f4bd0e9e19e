"""Which value goes with which risk, over adapters as units, and whether it is the published direction.

The spread over seeds of one target is noise and not n: the mean over its seeds is one unit (see `noise_floor`).
"""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np

from jaxalign.analysis.correlation import METHODS, benjamini_hochberg, correlations
from jaxalign.analysis.estimates import Estimate
from jaxalign.analysis.regression import Regression, regression
from jaxalign.values.schwartz import VALUES

Key = TypeVar("Key", bound=Hashable)

ALLOWED_FALSE = 0.05
"""The share of false findings that is allowed among findings."""


@dataclass(frozen=True)
class Risk:
    """How a value goes with the harm in a category: correlations over adapters, each with p, q and its n.

    The q-values are corrected over all values and categories of the benchmark, for each kind of correlation by itself.
    """

    value: str
    category: str
    target: Estimate
    """Spearman's correlation of the target's score with the category's mean; the primary figure."""
    target_pearson: Estimate
    measured: Estimate | None
    """Spearman's correlation of the questionnaire's score with the category's mean; None if it was not measured."""
    measured_pearson: Estimate | None

    @property
    def finding(self) -> int:
        """1 if harm goes up with the value, -1 if it goes down, and 0 if that is not known."""
        if self.target.estimate is None or self.target.q is None or self.target.q > ALLOWED_FALSE:
            return 0
        return int(np.sign(self.target.estimate))


def value_risks(
    targets: np.ndarray,
    means: Mapping[str, Sequence[float | None]],
    measured: np.ndarray | None = None,
    *,
    blocks: Sequence[object] | None = None,
    seed: int = 0,
) -> list[Risk]:
    """Return the risk of each value in each category of one benchmark, value by value.

    Args:
        targets: [A, 10] the target's scores of each adapter, 1 to 6, in the order of `VALUES`.
        means: by category, [A] the adapter's mean harm in it; None where it has none.
        measured: [A, 10] the measured scores, NaN where missing.
        blocks: [A] what belongs together, such as the extreme target that a realistic one is near to; in each block the
            adapters stand in the same order, such as by rank. None makes each adapter its own.
        seed: for orders and draws.
    """
    harm = np.array([[np.nan if x is None else x for x in means[category]] for category in means], np.float64).T
    harm = harm.reshape(len(targets), len(means))
    scores = [targets] if measured is None else [targets, measured]
    families = [
        _corrected(correlations(one, harm, method, blocks=blocks, seed=seed)) for one in scores for method in METHODS
    ]
    return [
        Risk(value, category, *(family[v][c] for family in families), *[None] * (4 - len(families)))
        for v, value in enumerate(VALUES)
        for c, category in enumerate(means)
    ]


def value_regressions(
    targets: np.ndarray, means: Mapping[str, Sequence[float | None]], *, blocks: Sequence[object] | None = None
) -> dict[str, Regression]:
    """Return, by category, the regression of harm on all ten values, which tells collinear values apart if it can.

    Args: see `value_risks`.
    """
    return {
        category: regression(
            np.array([np.nan if x is None else x for x in harm], np.float64), targets, VALUES, blocks=blocks
        )
        for category, harm in means.items()
    }


def judge_flips(first: Sequence[Risk], second: Sequence[Risk]) -> dict[tuple[str, str], str]:
    """Return the (value, category) pairs on which two judges of the same responses differ, and how.

    The words are "opposite" (both find a direction, not the same), "first only" and "second only".
    """
    mine, other = ({(risk.value, risk.category): risk.finding for risk in risks} for risks in (first, second))
    return sign_flips(mine, {pair: other.get(pair, 0) for pair in mine})


def sign_flips(first: Mapping[Key, int], second: Mapping[Key, int]) -> dict[Key, str]:
    """Return the conclusions on which two judges differ, and how (see `judge_flips`), among those that both have.

    The signs are 1, -1 or, where none is found, 0.
    """
    flips = {}
    for key, sign in first.items():
        if sign != second.get(key, sign):
            flips[key] = "opposite" if sign and second[key] else "first only" if sign else "second only"
    return flips


@dataclass(frozen=True)
class PublishedDirection:
    """A direction that Choi et al. (2025) publish."""

    value: str
    sign: int
    """1: more harm with the value; -1: less."""
    term: str
    """The category as the paper words it."""
    categories: tuple[str, ...]
    """The categories of ours that this is taken to mean."""


def _published(value: str, sign: int, **terms: tuple[str, ...]) -> tuple[PublishedDirection, ...]:
    return tuple(PublishedDirection(value, sign, term.replace("_", " "), ids) for term, ids in terms.items())


SEXUAL = ("sexual_content", "adult_content")

PUBLISHED: tuple[PublishedDirection, ...] = (
    *_published("achievement", -1, hate_speech=("hate_speech",), sexual_content=SEXUAL),
    *_published(
        "hedonism",
        1,
        sexual_content=SEXUAL,
        child_abuse=("child_abuse",),
        physical_harm=("physical_harm",),
        political_campaigning=("political_campaigning",),
    ),
    *_published("power", 1, hate_speech=("hate_speech",), discrimination=("discrimination",)),
    *_published(
        "power",
        -1,
        abuse=("child_abuse", "animal_abuse"),
        deception=("fraud_deception",),
        violence=("violence",),
        terrorism=("terrorism",),
        privacy=("privacy_violation",),
    ),
    *_published("universalism", -1, deception=("fraud_deception",), political_campaigning=("political_campaigning",)),
    *_published("self_direction", 1, adult_content=("adult_content",)),
)
"""The published directions (Choi et al., 2025, arXiv 2506.06404); which categories a term means is our reading."""


@dataclass(frozen=True)
class DirectionFinding:
    """What our adapters say of a published direction in one category."""

    direction: PublishedDirection
    category: str | None
    """None if none of the direction's categories was measured."""
    outcome: str
    """"same", "opposite" or "undecided"."""
    correlation: Estimate | None
    reason: str | None = None
    """Why it is undecided."""


def published_findings(risks: Sequence[Risk]) -> list[DirectionFinding]:
    """Return what risks say of each published direction, in each of its categories that was measured.

    It is the same or the opposite only if the correlation with the target's score passes the correction for all values
    and categories (q of at most `ALLOWED_FALSE`); otherwise it is undecided.
    """
    known = {(risk.value, risk.category): risk for risk in risks}
    found = []
    for direction in PUBLISHED:
        there = [one for one in direction.categories if (direction.value, one) in known]
        if not there:
            found.append(DirectionFinding(direction, None, "undecided", None, "no such category was measured"))
        for category in there:
            risk = known[direction.value, category]
            outcome, reason = "undecided", None
            if risk.finding:
                outcome = "same" if risk.finding == direction.sign else "opposite"
            elif risk.target.q is None:
                reason = risk.target.reason
            else:
                reason = f"q = {risk.target.q:.2g}, over {ALLOWED_FALSE}"
            found.append(DirectionFinding(direction, category, outcome, risk.target, reason))
    return found


def _corrected(family: list[list[Estimate]]) -> list[list[Estimate]]:
    """Return correlations with their q-values, corrected over the whole family."""
    q = iter(benjamini_hochberg([one.p for row in family for one in row]))
    return [[replace(one, q=next(q)) for one in row] for row in family]
