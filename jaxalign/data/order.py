"""The order of examples: a pure function of seed, epoch and step, so that resuming needs no state."""

import enum
from collections.abc import Hashable, Sequence

import numpy as np


class Stream(enum.IntEnum):
    """What stands beside the seed, so that no two draws of one run are the same draw."""

    SPLIT = 1
    SHUFFLE = 2
    ORDER = 3
    PUZZLES = 4
    PAIRS = 5


def epoch_order(groups: Sequence[Hashable], seed: int, epoch: int, limit: int) -> list[int]:
    """Return a permutation of the examples' indices for one epoch (counted from 0).

    Examples of one group (those that share a prompt) stand together, up to `limit` of them, so that most fall into one
    step and share it; beyond that a group is cut into parts that are shuffled like any other. `limit` 1 is a plain
    shuffle. Depends on nothing but its arguments: not on hash order, not on earlier epochs.
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
    """Cut an order into batches of `batch_size` examples; the last may be smaller."""
    return [list(order[start : start + batch_size]) for start in range(0, len(order), batch_size)]
