import dataclasses

import jax
import pytest
from tree_predictions import packed_contexts, random_forest, total

from jaxalign.data.bucketing import fits, plan, shape_for
from jaxalign.data.packing import measure, pack, split_trees
from jaxalign.errors import UserError


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("alone", [False, True])
def test_a_planned_shape_holds_its_step_and_few_shapes_hold_all(seed, alone):
    steps = [random_forest(100 * seed + step, most=30) for step in range(12)]
    shapes = plan(steps, 96, 3, alone=alone)
    assert len({shape.rows for shape in shapes}) <= 3
    assert len(set(shapes)) <= 3
    assert len({shape.tokens for shape in shapes}) == 1
    assert shapes[0].tokens <= 96
    for trees, shape in zip(steps, shapes, strict=True):
        pieces = split_trees(trees, shape.tokens)
        tight = measure(pieces, shape.tokens, alone)
        assert tight.rows <= shape.rows
        assert tight.predictions <= shape.predictions
        batch = pack(pieces, shape, alone)
        assert packed_contexts(batch) == total(trees)
        assert batch.blocks.shape[2] == shape.blocks


def test_planned_rows_have_room_for_the_longest():
    steps = [random_forest(seed, most=30) for seed in range(5)]
    shapes = plan(steps, 128, 2, longest=70)
    assert all(70 <= shape.tokens <= 128 for shape in shapes)
    with pytest.raises(UserError, match="a text of 129 tokens does not fit into rows of 128"):
        plan(steps, 128, longest=129)


@pytest.mark.slow
def test_a_program_is_compiled_only_if_it_saves_more_than_it_costs():
    steps = [random_forest(seed, most=30) for seed in (0, 0, 1)]
    few = plan(steps, 64, 3)
    assert len({(shape.rows, shape.tokens) for shape in few}) == 1
    # The same steps so often that padding costs more than any compilation.
    many = plan(steps * 300, 64, 3)
    for trees, shape in zip(steps, many, strict=False):
        assert shape.rows == measure(split_trees(trees, shape.tokens), shape.tokens).rows


def test_trees_get_the_cheapest_shape_with_room_or_one_of_their_own():
    trees = random_forest(3, most=30)
    tight = measure(split_trees(trees, 64), 64)
    wide, narrow = dataclasses.replace(tight, rows=9 * tight.rows), dataclasses.replace(tight, rows=tight.rows - 1)
    assert shape_for(trees, [wide, tight, narrow]) == tight
    assert [fits(trees, shape) for shape in (wide, tight, narrow)] == [True, True, False]
    own = shape_for(trees, [narrow])
    assert fits(trees, own) and (own.rows, own.tokens, own.predictions % 64) == (tight.rows, 64, 0)


def test_rows_for_gpus_and_tpus_are_multiples_of_128_and_of_fewer_shapes(monkeypatch):
    steps = [[tree for seed in range(size) for tree in random_forest(seed, most=40)] for size in (1, 2, 1, 60)]
    on_cpu = plan(steps, 512, 3)
    monkeypatch.setattr(jax, "default_backend", lambda: "tpu")
    elsewhere = plan(steps, 512, 3)
    assert all(shape.tokens % 32 == 0 for shape in on_cpu)
    assert all(shape.tokens % 128 == 0 for shape in elsewhere)
    assert len(set(elsewhere)) == 1 < len(set(on_cpu))
    assert elsewhere[0].predictions % 128 == 0  # so that data sets which differ little share their programs
