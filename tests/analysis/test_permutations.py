import math

import numpy as np
import pytest

from jaxalign.analysis.permutations import MOST_ORDERS, block_orders, smallest_p


def test_few_units_are_put_in_every_order_once():
    orders = block_orders(5)
    assert orders.shape == (math.factorial(5), 5) and len(np.unique(orders, axis=0)) == 120
    assert orders[0].tolist() == [0, 1, 2, 3, 4]


def test_many_units_are_put_in_random_orders_of_all_units():
    orders = block_orders(20, seed=1)
    assert orders.shape == (MOST_ORDERS, 20) and orders[0].tolist() == list(range(20))
    assert (np.sort(orders, 1) == np.arange(20)).all()
    assert np.abs(orders[1:].mean(0) - 9.5).max() < 0.3
    assert (orders != block_orders(20, seed=2)).any() and (orders == block_orders(20, seed=1)).all()


@pytest.mark.parametrize("count", [4, 12])
def test_units_of_a_block_stay_together_in_their_order(count):
    blocks = np.tile(np.arange(count), 3)  # members are not side by side
    orders = block_orders(3 * count, blocks.tolist())
    assert len(orders) == min(math.factorial(count), MOST_ORDERS)
    moved = np.arange(3 * count)[orders].reshape(len(orders), 3, count)  # [orders, member, block]
    assert (moved // count == np.arange(3)[None, :, None]).all()  # the first stays a first, the second a second
    assert (moved % count == (moved % count)[:, :1]).all()  # and all three come from one block


def test_blocks_change_places_with_blocks_of_their_size_alone():
    orders = block_orders(6, ["a", "a", "b", "b", "c", "d"])
    assert len(orders) == 4
    assert {tuple(one) for one in orders.tolist()} == {
        (0, 1, 2, 3, 4, 5),
        (2, 3, 0, 1, 4, 5),
        (0, 1, 2, 3, 5, 4),
        (2, 3, 0, 1, 5, 4),
    }


def test_the_smallest_p_counts_the_ways_to_place_a_value():
    fourteen = np.array([6, 6] + [1] * 12)
    assert smallest_p(fourteen) == pytest.approx(2 / 91)
    assert smallest_p(np.repeat([1, 6], 12)) == 1 / MOST_ORDERS  # 2 of 2,704,156 ways: the draws are the limit
    assert smallest_p(np.repeat([1, 6], 12), orders=10**30) == pytest.approx(2 / math.comb(24, 12))
    assert smallest_p(np.arange(5)) == 2 / 120
    assert smallest_p(np.ones(9)) == 1
    repeated = np.repeat(fourteen, 11)
    assert smallest_p(repeated, np.repeat(np.arange(14), 11).tolist()) == pytest.approx(1 / 91)


def test_orders_are_drawn_once_for_many_tests_of_the_same_units_and_nobody_can_change_them():
    first = block_orders(24)
    assert block_orders(24) is first and block_orders(24, [n // 2 for n in range(24)]) is not first
    with pytest.raises(ValueError, match="read-only"):
        first[0, 0] = 1
