import os
import subprocess
import sys

import pytest

from jaxalign.data.order import batches, epoch_order

GROUPS = [b"a", b"b", b"a", b"c", b"a", b"b", b"d", b"a", b"a", b"e"]


@pytest.mark.parametrize("limit", [1, 2, 4, 100])
def test_every_example_comes_once_an_epoch(limit):
    assert sorted(epoch_order(GROUPS, 3, 0, limit)) == list(range(len(GROUPS)))


def test_the_order_follows_from_seed_and_epoch_and_from_nothing_else():
    first = epoch_order(range(50), 1, 0, 1)
    assert epoch_order(range(50), 1, 0, 1) == first
    assert epoch_order(range(50), 1, 1, 1) != first
    assert epoch_order(range(50), 2, 0, 1) != first
    assert first != list(range(50))


def test_the_order_is_the_same_in_another_process_with_other_hashes():
    code = f"from jaxalign.data.order import epoch_order; print(epoch_order({GROUPS!r}, 5, 2, 2))"
    command = [sys.executable, "-c", code]
    runs = [
        subprocess.run(command, env=os.environ | {"PYTHONHASHSEED": seed}, capture_output=True, text=True)
        for seed in "17"
    ]
    assert {run.stdout.strip() for run in runs} == {str(epoch_order(GROUPS, 5, 2, 2))}


def test_examples_of_one_group_stand_together_up_to_the_limit():
    order = epoch_order(GROUPS, 0, 0, 3)
    runs, previous = [], None
    for index in order:
        if GROUPS[index] == previous:
            runs[-1] += 1
        else:
            runs.append(1)
        previous = GROUPS[index]
    # a: five examples in parts of three and two; b: two; c, d and e: one each. Parts may meet by chance.
    assert len(runs) in (5, 6)
    whole = [GROUPS[index] for index in epoch_order(GROUPS, 0, 0, 5)]
    assert b"aaaaa" in b"".join(whole)
    assert b"bb" in b"".join(whole)


def test_batches_cut_an_order_and_the_last_may_be_smaller():
    assert batches([4, 2, 0, 1, 3], 2) == [[4, 2], [0, 1], [3]]
    assert batches([], 2) == []
