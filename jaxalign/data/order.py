"""The order of examples: a pure function of the seed and the epoch, so that resuming needs no state."""

import enum
from collections.abc import Hashable, Sequence

import numpy as np


class Stream(enum.IntEnum):
    """Numbers that are combined with the seed, so that different draws of a run are independent."""

    SPLIT = 1
    SHUFFLE = 2
    ORDER = 3
    PUZZLES = 4
    PAIRS = 5
    REGULARISING = 6


def epoch_order(groups: Sequence[Hashable], seed: int, epoch: int, limit: int) -> list[int]:
    """Return the indices of all examples in the order of an epoch, which counts from 0.

    Examples of one group (those with one prompt) stand together, so that most come into one step and share the prompt.
    A group of more than `limit` examples is cut into parts, which are shuffled like groups; a limit of 1 is a plain
    shuffle. The result depends on the arguments alone, not on hashes or on earlier epochs.
    """
    random = np.random.Generator(np.random.PCG64([seed, Stream.ORDER, epoch]))
    members: dict[Hashable, list[int]] = {}
    for index, group in enumerate(groups):
        members.setdefault(group, []).append(index)
    parts = []
    for indices in members.values():
        shuffled = [indices[i] for i in random.permutation(len(indices))]
        parts += [shuffled[start : start + limit] for start in range(0, len(shuffled), limit)]
    return [index for part in random.permutation(len(parts)) for index in parts[part]]


def batches(order: Sequence[int], batch_size: int) -> list[list[int]]:
    """Return an order in batches of `batch_size` examples; the last may be smaller."""
    return [list(order[start : start + batch_size]) for start in range(0, len(order), batch_size)]
