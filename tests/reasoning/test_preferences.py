import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from reasoning.few_questions import rationale

from jaxalign.reasoning.preferences import draw, pools


def some_rationales(questions=12, seed=0):
    random = np.random.default_rng(seed)
    found = {}
    for number in range(questions):
        right = [bool(random.random() < 0.5) if random.random() < 0.9 else None for _ in range(8)]
        found[f"id {number}/x"] = [
            rationale(f"{n}", one, int(random.integers(0, 4)) if one else None, question=f"id {number}/x")
            for n, one in enumerate(right)
        ]
    return found


def test_pairs_by_the_answer_are_every_right_over_every_wrong_one():
    found = some_rationales()
    pool = pools(found)
    right = {id: sum(one.right is True for one in mine) for id, mine in found.items()}
    wrong = {id: sum(one.right is False for one in mine) for id, mine in found.items()}
    assert pool.size("z") == sum(right[id] * wrong[id] for id in found) > 0
    for id, places in pool.pairs["z"]:
        assert all(found[id][better].right is True and found[id][other].right is False for better, other in places)
        assert len({tuple(pair) for pair in places.tolist()}) == len(places)


def test_pairs_by_follow_ups_are_strictly_ordered_and_among_right_ones():
    found = some_rationales()
    pool = pools(found)
    expected = sum(
        one.agreed > other.agreed
        for mine in found.values()
        for one in mine
        for other in mine
        if one.right and other.right
    )
    assert pool.size("z_tilde") == expected > 0
    for id, places in pool.pairs["z_tilde"]:
        for better, other in places:
            one, two = found[id][better], found[id][other]
            assert one.right and two.right and one.agreed > two.agreed


@pytest.mark.parametrize(("mixing", "by_followups"), [(0.0, 0), (0.6, 24), (1.0, 40)])
def test_the_mixture_is_by_count(mixing, by_followups):
    pool = pools(some_rationales(40))
    chosen, report = draw(pool, 40, mixing, 0, 1)
    assert sum(one.kind == "z_tilde" for one in chosen) == by_followups
    assert len(chosen) == len({(one.question, one.better, one.worse) for one in chosen}) == 40
    assert report["z"]["drawn"] == 40 - by_followups


def test_a_kind_that_is_short_gives_all_it_has_and_says_so():
    pool = pools(some_rationales(2))
    there = pool.size("z_tilde")
    chosen, report = draw(pool, 10 * (there + 1), 1.0, 0, 1)
    assert len(chosen) == there == report["z_tilde"]["drawn"] < report["z_tilde"]["wanted"]


def test_rounds_and_seeds_draw_anew_and_the_order_of_questions_changes_nothing():
    found = some_rationales(40)
    pool = pools(found)
    turned = pools(dict(reversed(found.items())))
    assert draw(pool, 30, 0.6, 0, 1) == draw(turned, 30, 0.6, 0, 1)
    assert draw(pool, 30, 0.6, 0, 1) != draw(pool, 30, 0.6, 0, 2)
    assert draw(pool, 30, 0.6, 0, 1) != draw(pool, 30, 0.6, 1, 1)


@pytest.mark.slow
@pytest.mark.parametrize("hash_seed", ["1", "2"])
def test_the_same_pairs_under_any_hash_seed(hash_seed):
    code = (
        "import json, sys; sys.path[:0] = sys.argv[1:]\n"
        "from reasoning.test_preferences import some_rationales\n"
        "from jaxalign.reasoning.preferences import draw, pools\n"
        "print(json.dumps([vars(one) for one in draw(pools(some_rationales()), 20, 0.5, 0, 1)[0]]))"
    )
    here = Path(__file__).parents[1]
    done = subprocess.run(
        [sys.executable, "-c", code, str(here), str(here.parent)],
        env={**os.environ, "PYTHONHASHSEED": hash_seed},
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(done.stdout) == [vars(one) for one in draw(pools(some_rationales()), 20, 0.5, 0, 1)[0]]
