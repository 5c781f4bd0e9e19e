"""Which rationales are learnt from, and the counts that say what happened to the others."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jaxalign.analysis.statistics import bootstrap_interval
from jaxalign.reasoning.rationales import Rationale


def passes(rationale: Rationale, options: int, tolerance: int | None, threshold: int | None = None) -> bool:
    """Return whether a rationale is kept for fine-tuning: z = 1, and z~ of at least F - t for its question's own F.

    Args:
        rationale: read, with its follow-ups.
        options: F, the question's number of options.
        tolerance: t; None keeps every z = 1.
        threshold: the released code's number instead, the same for every F.
    """
    if not rationale.right:
        return False
    if threshold is None and tolerance is None:
        return True
    least = options - (tolerance or 0) if threshold is None else threshold
    return rationale.agreed is not None and rationale.agreed >= least


def count_rationales(rationales: Mapping[str, Sequence[Rationale]], options: Mapping[str, int]) -> dict[str, Any]:
    """Return what the evaluation found, over all questions: samples and distinct rationales; of the distinct ones (and
    of the samples) the unread and those with z = 1; the histogram of z~ by number of options; and the share of
    questions whose rationales' follow-ups all read alike.

    `options` is each question's F.
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
    """Return the mean of z~ / F with its bootstrap interval, the share with z~ = F, and of those with z = 1 the share
    with a contradiction; over the rationales whose follow-ups were read (None where there is none)."""
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
