"""Orders of units under "no effect", and the smallest p-value that they can give."""

import itertools
import math
from collections.abc import Sequence
from functools import lru_cache

import numpy as np

MOST_ORDERS = 20_000
"""How many orders a permutation test draws; if there are no more, it takes each of them once."""


def block_orders(
    n: int, blocks: Sequence[object] | None = None, seed: int = 0, orders: int = MOST_ORDERS
) -> np.ndarray:
    """Return orders [P, n] of n units as likely as the given one if nothing has an effect; the first is the given one.

    Units of one block change places together and keep their order in it: units that resemble each other, such as a
    target and its neighbours, are no independent evidence. Only blocks of equal size can change places. The array
    cannot be written to, because later calls return it, too.

    Args:
        n: how many units.
        blocks: [n] the block of each unit; None makes each unit its own.
        seed: for the draws.
        orders: the most orders; if there are no more, all are returned.
    """
    return _orders(n, None if blocks is None else tuple(blocks), seed, orders)


@lru_cache(maxsize=1)  # a report tests pair after pair of numbers of the same units
def _orders(n: int, blocks: tuple[object, ...] | None, seed: int, orders: int) -> np.ndarray:
    kinds = [np.array(members) for members in _by_size(n, blocks)]  # each [blocks of one size, size]
    if _count(kinds) <= orders:
        found = _every_order(n, kinds)
    else:
        random = np.random.Generator(np.random.PCG64(seed))
        found = np.tile(np.arange(n), (orders, 1))
        for members in kinds:
            chosen = random.random((orders - 1, len(members))).argsort(1)
            found[1:, members.ravel()] = members[chosen].reshape(orders - 1, -1)
    found.flags.writeable = False
    return found


def smallest_p(x: np.ndarray, blocks: Sequence[object] | None = None, orders: int = MOST_ORDERS) -> float:
    """Return the smallest two-sided p-value that a permutation test of a correlation with x can give.

    A value that is high in 2 of 14 units can be placed in 91 ways, so it is 2 / 91, however strong the effect.

    Args:
        x: [n] the numbers that are permuted.
        blocks: [n] see `block_orders`.
        orders: how many orders the test draws.
    """
    x = np.asarray(x, np.float64)
    ways, mirrored = 1, blocks is None
    for members in _by_size(len(x), blocks):
        rows = [tuple(x[list(one)]) for one in members]
        alike = math.prod(math.factorial(rows.count(row)) for row in set(rows))
        ways *= math.factorial(len(rows)) // alike
    # Reversed ranks have the opposite correlation; a reversed order of blocks need not.
    exact = min(1.0, (2 if mirrored else 1) / ways)
    return exact if _count([np.array(one) for one in _by_size(len(x), blocks)]) <= orders else max(exact, 1 / orders)


def _by_size(n: int, blocks: Sequence[object] | None) -> list[list[list[int]]]:
    """Return the blocks as lists of their units, those of one size together."""
    members: dict[object, list[int]] = {}
    for unit, block in enumerate(range(n) if blocks is None else blocks):
        members.setdefault(block, []).append(unit)
    sizes: dict[int, list[list[int]]] = {}
    for units in members.values():
        sizes.setdefault(len(units), []).append(units)
    return list(sizes.values())


def _count(kinds: list[np.ndarray]) -> int:
    return math.prod(math.factorial(len(members)) for members in kinds)


def _every_order(n: int, kinds: list[np.ndarray]) -> np.ndarray:
    every = []
    for chosen in itertools.product(*(itertools.permutations(range(len(members))) for members in kinds)):
        order = np.arange(n)
        for members, places in zip(kinds, chosen, strict=True):
            order[members.ravel()] = members[list(places)].ravel()
        every.append(order)
    return np.array(every)
