import pytest

from jaxalign.data.datasets.puzzles import make_puzzles
from jaxalign.errors import UserError


def test_puzzles_follow_from_their_statements_and_are_all_different():
    made = make_puzzles(train=40, validation=10, test=10, solved=6, links=(1, 2, 3), turned=0.5, seed=3)
    parts = [made.solved, made.train, made.validation, made.test]
    assert [len(part) for part in parts] == [6, 40, 10, 10]
    everyone = [question for part in parts for question in part]
    assert len({question.text for question in everyone}) == len({question.id for question in everyone}) == 66
    for question in everyone:
        assert 0 <= question.gold < len(question.options) == len(set(question.options))
        assert question.solution.endswith(f"{question.options[question.gold]}.")
    # Each position is right about as often as any other.
    golds = [question.gold for question in everyone if len(question.options) == 3]
    assert max(map(golds.count, range(3))) < 0.7 * len(golds)
    assert make_puzzles(train=40, validation=10, test=10, solved=6, links=(1, 2, 3), turned=0.5, seed=3) == made
    assert make_puzzles(train=40, validation=10, test=10, links=(2,), seed=4).train != made.train


def test_an_ordering_is_solved_by_its_own_statements():
    made = make_puzzles(train=60, validation=1, test=1, links=(3,), turned=0.5)
    opposites = {"shorter": "taller", "younger": "older", "slower": "faster", "poorer": "richer", "weaker": "stronger"}
    checked = 0
    for question in made.train:
        if not question.id.startswith("ordering"):
            continue
        *facts, asked = question.text.replace("?", ".").split(". ")
        above = set()
        for fact in facts:
            left, _, how, _, right = fact.rstrip(".").split()
            above.add((right, left) if how in opposites else (left, right))
        word = asked.rstrip(".").split()[-1]
        most = any(word == superlative for superlative in ("tallest", "oldest", "fastest", "richest", "strongest"))
        gold = question.options[question.gold]
        # Nobody stands above the first, nor below the last.
        assert gold not in {pair[1] if most else pair[0] for pair in above}
        checked += 1
    assert checked == 20


def test_puzzles_that_cannot_be_made_are_refused():
    with pytest.raises(UserError, match=r"dataset\.links"):
        make_puzzles(train=1, validation=1, test=1, links=(5,))
