"""Multiple choice: from a prompt and its possible answers to probabilities or a choice.

These are pure functions of token arrays and of the log-probabilities that a `Scorer` returns.

n tokens of a text, S segments of a tree.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Float64, Int32

from jaxalign.data.trees import Segment, Tokens, Tree, radix, shared_length


class ChoiceTree(NamedTuple):
    """A prompt and its answers as one tree."""

    tree: Tree
    ends: tuple[int, ...]
    """For each answer, the index of the segment in which it ends."""


def choice_tree(prompt: Int32[np.ndarray, " n"], answers: Sequence[Int32[np.ndarray, " _"]]) -> ChoiceTree:
    """Return a tree with the prompt as its trunk. Tokens with which several answers begin are in it only once.

    The prompt and each answer have at least one token. An answer's tokens are those of the whole answer, as training
    encodes it.
    """
    (tree,), (ends,) = radix([(Segment(prompt, -1), *(Segment(answer, 0, True) for answer in answers))])
    return ChoiceTree(tree, tuple(segment for _, segment in ends[1:]))


def until_decided(answers: Sequence[Tokens]) -> list[Tokens]:
    """Return each answer up to the first token with which it differs from all others, and that token.

    Whoever writes one of the answers has chosen it with that token. The tokens behind it follow from the choice, so
    they need not be read, and a choice with rare words behind it is not taken for an unlikely one.
    """
    return [
        answer[: 1 + max((shared_length((answer, other)) for other in (*answers[:n], *answers[n + 1 :])), default=0)]
        for n, answer in enumerate(answers)
    ]


def choice_log_probs(question: ChoiceTree, scores: Float[np.ndarray, " S"]) -> Float64[np.ndarray, " answers"]:
    """Return the log-probability of each answer in nats: the sum of the scores of the segments on its path."""
    sums = np.array(scores, np.float64)
    for index, segment in enumerate(question.tree):  # parents come before their children
        if segment.parent >= 0:
            sums[index] += sums[segment.parent]
    return sums[list(question.ends)]


def probabilities(log_probs: Float64[np.ndarray, " answers"]) -> Float64[np.ndarray, " answers"] | None:
    """Return the probabilities of the answers, which sum to 1; None if the largest log-probability is not finite."""
    peak = log_probs.max()
    if not np.isfinite(peak):
        return None
    weights = np.exp(log_probs - peak)
    return weights / weights.sum()


def best_option(log_probs: Float[np.ndarray, " options"]) -> int | None:
    """Return the index of the option with the largest log-probability (of equal ones, the first).

    None if the largest value is not finite.
    """
    return int(log_probs.argmax()) if np.isfinite(log_probs.max()) else None
