"""Reading answers off a model: from a prompt and its possible answers to probabilities, a choice or an expected score.

All of it is pure over token arrays and the log-probabilities that a `Scorer` returns.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from jaxalign.data.trees import Segment, Tree, radix
from jaxalign.errors import UserError, did_you_mean

LENGTH_RULES = ("sum", "token", "byte")
"""How options of different lengths compare: by their log-probability, by its mean over tokens, or over bytes."""


class ChoiceTree(NamedTuple):
    """A prompt with its answers as one tree; `ends[i]` is the segment that the i-th answer ends in."""

    tree: Tree
    ends: tuple[int, ...]


def choice_tree(prompt: np.ndarray, answers: Sequence[np.ndarray]) -> ChoiceTree:
    """Hang a radix tree of the answers' tokens on the prompt: what answers begin with alike is computed once.

    `prompt` and each answer are int32 [n], n >= 1. Each answer is encoded whole, so it has the tokens that training
    gave it.
    """
    (tree,), (ends,) = radix([(Segment(prompt, -1), *(Segment(answer, 0, True) for answer in answers))])
    return ChoiceTree(tree, tuple(segment for _, segment in ends[1:]))


def choice_log_probs(question: ChoiceTree, scores: np.ndarray) -> np.ndarray:
    """Return the log-probability of each answer, float64 [answers]: the sum of the segments' scores along its path."""
    sums = np.array(scores, np.float64)
    for index, segment in enumerate(question.tree):  # parents stand before their children
        if segment.parent >= 0:
            sums[index] += sums[segment.parent]
    return sums[list(question.ends)]


def probabilities(log_probs: np.ndarray) -> np.ndarray | None:
    """Normalise over the answers [answers]; None where there is no number to read."""
    peak = log_probs.max()
    if not np.isfinite(peak):
        return None
    weights = np.exp(log_probs - peak)
    return weights / weights.sum()


def best_option(log_probs: Sequence[float], lengths: Sequence[int], rule: str) -> int | None:
    """Return the index of the best option, the first of equals; None where there is no number to read.

    Args:
        log_probs: the log-probability of each option.
        lengths: its tokens (rule `token`) or the bytes of its text (rule `byte`), at least 1; `sum` does not look.
        rule: one of `LENGTH_RULES`.

    Raises:
        UserError: there is no such rule.
        ValueError: a length is less than 1.
    """
    if rule not in LENGTH_RULES:
        raise UserError(f"there is no length rule {rule!r}{did_you_mean(rule, LENGTH_RULES)}")
    values = np.asarray(log_probs, np.float64)
    if rule != "sum":
        if min(lengths) < 1:
            raise ValueError(f"an option has the length {min(lengths)}: nothing to take the mean over")
        values = values / np.asarray(lengths)
    return int(values.argmax()) if np.isfinite(values.max()) else None


def expected_score(log_probs: Sequence[float], scores: Sequence[float]) -> float | None:
    """Return the mean of `scores` under the probabilities of their digits, normalised over the digits alone.

    `log_probs` [scores] are those of each score's answer. None where no log-probability is finite.
    """
    weights = probabilities(np.asarray(log_probs, np.float64))
    return None if weights is None else float(weights @ np.asarray(scores, np.float64))
