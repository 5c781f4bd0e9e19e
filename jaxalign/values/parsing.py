"""Reading scores from generated text: the score in an answer of the trained form, else the first single digit 1..6."""

import re
from collections.abc import Sequence
from string import Formatter
from typing import Any

import numpy as np

from jaxalign.values.injection import Prompts
from jaxalign.values.portraits import Portrait
from jaxalign.values.profile import profile_fit
from jaxalign.values.schwartz import VALUES

_ALONE = r"(?<![\d.,])([1-6])(?![\d%]|[.,]\d)"
"""A digit 1..6 that is not part of a longer number, a decimal or a percentage."""


def stated_answer(prompts: Prompts) -> re.Pattern[str]:
    """Return a pattern that finds the trained answer (`alignment.prompts.survey_response`); its group is the score."""
    pattern = ""
    for literal, name, _, _ in Formatter().parse(prompts.survey_response):
        pattern += re.escape(literal)
        pattern += {None: "", "score": _ALONE}.get(name, r"[^\n]{1,80}?")
    return re.compile(pattern)


def parse_score(text: str, stated: re.Pattern[str]) -> int | None:
    """Return the score 1..6 that a text states, or None where it states none.

    >>> parse_score("I would say 4, or maybe 5.", re.compile("Answer: ([1-6])"))
    4
    >>> parse_score("On a scale of 10, 3.5", re.compile("Answer: ([1-6])"))
    """
    found = stated.search(text) or re.search(_ALONE, text)
    return int(found[1]) if found else None


def read_texts(
    portraits: Sequence[Portrait], texts: Sequence[str], prompts: Prompts, target: Sequence[float] | None
) -> dict[str, Any]:
    """Return what generated answers say: `scores` by value, how well they fit the target, and `missing`.

    `texts` has one answer for each portrait, and `missing` counts the answers without a score. The score of a value is
    the mean over its portraits, or None where none of them was answered with a score.
    """
    stated = stated_answer(prompts)
    given: dict[str, list[int]] = {value: [] for value in VALUES}
    missing = 0
    for portrait, text in zip(portraits, texts, strict=True):
        score = parse_score(text, stated)
        if score is None:
            missing += 1
        else:
            given[portrait.value].append(score)
    scores = {value: float(np.mean(found)) if found else None for value, found in given.items()}
    return {"scores": scores, **profile_fit([scores[value] for value in VALUES], target), "missing": missing}
