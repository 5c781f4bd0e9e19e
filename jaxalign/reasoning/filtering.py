"""Which rationales are used for fine-tuning, and counts of what was found in all of them."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jaxalign.analysis.statistics import bootstrap_interval
from jaxalign.reasoning.rationales import Rationale


def passes(rationale: Rationale, options: int, tolerance: int | None, threshold: int | None = None) -> bool:
    """Return whether a rationale is kept for fine-tuning: z = 1, and z~ is at least F - t.

    Args:
        rationale: a rationale that was read, with its follow-ups.
        options: F, the number of options of its question.
        tolerance: t; None keeps every rationale with z = 1.
        threshold: the least z~ for every F, as in the released code; None uses F - t.
    """
    if not rationale.right:
        return False
    if threshold is None and tolerance is None:
        return True
    least = options - (tolerance or 0) if threshold is None else threshold
    return rationale.agreed is not None and rationale.agreed >= least


def count_rationales(rationales: Mapping[str, Sequence[Rationale]], options: Mapping[str, int]) -> dict[str, Any]:
    """Return counts over all questions.

    They are: samples and distinct rationales; how many of both could not be read, and how many have z = 1; the
    histogram of z~ for each number of options; and, of the questions with several judged rationales, the share in which
    all rationales got the same judgements (`followups_alike`). `options` is F of each question.
    """
    everyone = [one for mine in rationales.values() for one in mine]
    histogram: dict[int, Counter[int]] = {}
    for one in everyone:
        if one.agreed is not None and one.right:
            histogram.setdefault(options[one.question], Counter())[one.agreed] += 1
    alike, judged = 0, 0
    for mine in rationales.values():
        readings = {tuple(affirm > deny for affirm, deny in one.followups) for one in mine if one.followups}
        several = sum(bool(one.followups) for one in mine) > 1
        judged += several
        alike += several and len(readings) == 1
    return {
        "questions": len(rationales),
        "sampled": sum(one.copies for one in everyone),
        "distinct": len(everyone),
        "unread": sum(one.right is None for one in everyone),
        "unread_samples": sum(one.copies for one in everyone if one.right is None),
        "right": sum(bool(one.right) for one in everyone),
        "right_samples": sum(one.copies for one in everyone if one.right),
        "questions_with_right": sum(any(one.right for one in mine) for mine in rationales.values()),
        "z_tilde": {str(f): {str(k): histogram[f][k] for k in range(f + 1)} for f in sorted(histogram)},
        "followups_alike": alike / judged if judged else None,
    }


def consistency(rationales: Sequence[Rationale], options: Mapping[str, int]) -> dict[str, Any]:
    """Return how consistent rationales are, over those whose follow-ups were read; None where there are none.

    `consistency` is the mean of z~ / F, with its bootstrap interval. `all_agreed` is the share with z~ = F.
    `right_with_contradiction` is the share with z~ < F among the rationales with z = 1.
    """
    read = [one for one in rationales if one.agreed is not None]
    right = [one for one in read if one.right]

    def mean(values: Sequence[float]) -> float | None:
        return float(np.mean(values)) if values else None

    shares = [(one.agreed or 0) / options[one.question] for one in read]
    return {
        "consistency": mean(shares),
        "consistency_interval": bootstrap_interval(shares),
        "all_agreed": mean([one.agreed == options[one.question] for one in read]),
        "right_with_contradiction": mean([one.agreed != options[one.question] for one in right]),
    }
