from collections import Counter

import numpy as np
import pytest
from tiny_model import packed, random_tokens, random_tree

from jaxalign.data.bucketing import plan
from jaxalign.data.packing import (
    PackedBatch,
    Shape,
    assign_rows,
    fill_rows,
    measure,
    pack,
    split_tree,
    split_trees,
    stack_batches,
    visible_blocks,
)
from jaxalign.data.trees import Segment, Tree, merge, path_lengths, predictions, radix, tree_length
from jaxalign.errors import UserError
from jaxalign.models.attention import KEY_BLOCK, QUERY_BLOCK

SEEDS = range(12)


def ancestry(tree: Tree, index: int) -> list[int]:
    """Return the segments from the root to this one."""
    path = [index]
    while tree[path[0]].parent >= 0:
        path.insert(0, tree[path[0]].parent)
    return path


def contexts(tree: Tree) -> Counter:
    """Return every prediction of a tree, as (what stands before it, token, weight)."""
    found: Counter = Counter()
    for index, segment in enumerate(tree):
        if segment.scored:
            before = [token for part in ancestry(tree, index)[:-1] for token in tree[part].tokens.tolist()]
            for token in segment.tokens.tolist():
                found[(tuple(before), token, segment.weight)] += 1
                before.append(token)
    return found


def packed_contexts(batch: PackedBatch) -> Counter:
    """Return the predictions of a batch in the same form, read off its arrays by the rule of visibility."""
    found: Counter = Counter()
    for row in range(batch.tokens.shape[0]):
        for place in np.flatnonzero(batch.weight[row]):
            i = batch.source[row, place]
            seen = [j for j in range(i + 1) if i < batch.ends[row, j]]
            assert batch.positions[row, seen].tolist() == list(range(len(seen)))
            weight = float(batch.weight[row, place])
            found[(tuple(batch.tokens[row, seen].tolist()), int(batch.target[row, place]), weight)] += 1
    return found


def total(trees) -> Counter:
    return sum((contexts(tree) for tree in trees), Counter())


def path_tokens(tree: Tree, index: int) -> tuple[int, ...]:
    """Return the tokens from the root to the end of a segment."""
    return tuple(token for part in ancestry(tree, index) for token in tree[part].tokens.tolist())


def random_forest(seed: int, most: int = 9) -> list[Tree]:
    random = np.random.default_rng(seed)
    return [random_tree(random, int(random.integers(1, 8))) for _ in range(random.integers(1, most))]


def leaf_paths(tree: Tree) -> set[tuple[int, ...]]:
    """Return the tokens of every root-to-leaf path."""
    parents = {segment.parent for segment in tree}
    leaves = (index for index in range(len(tree)) if index not in parents)
    return {path_tokens(tree, leaf) for leaf in leaves}


@pytest.mark.parametrize("seed", SEEDS)
def test_every_prediction_is_packed_once_and_sees_its_own_path_alone(seed):
    trees = random_forest(seed)
    assert packed_contexts(packed(trees, 64)) == total(trees)


@pytest.mark.parametrize("seed", SEEDS)
def test_no_token_is_lost_and_padding_sees_itself_alone(seed):
    trees = random_forest(seed)
    batch = pack(trees, Shape(len(trees) + 1, 64, 64))
    stored = sum(tree_length(tree) for tree in trees)
    rows = assign_rows([tree_length(tree) for tree in trees], 64)
    used = np.bincount(rows, [tree_length(tree) for tree in trees], batch.tokens.shape[0]).astype(int)
    assert used.sum() == stored
    for row, count in enumerate(used):
        assert batch.ends[row, count:].tolist() == list(range(count + 1, 65))
        assert np.all(batch.ends[row, :count] <= count)


def test_branches_are_numbered_in_the_order_of_the_trees():
    random = np.random.default_rng(5)
    trees = [
        (Segment(random_tokens(random, 1, 9), -1), Segment(np.full(3 + n, n, np.int32), 0, True)) for n in range(6)
    ]
    batch = packed(trees, 32)
    counted = batch.weight != 0
    assert batch.tokens.shape[0] > 1
    np.testing.assert_array_equal(batch.branch[counted], batch.target[counted])
    assert np.bincount(batch.branch[counted]).tolist() == [3, 4, 5, 6, 7, 8]


def test_trees_that_do_not_fit_and_roots_that_are_scored_are_refused():
    tree = (Segment(np.arange(20, dtype=np.int32), -1),)
    with pytest.raises(ValueError, match="2 rows of trees do not fit"):
        pack([tree, tree], Shape(1, 32, 16))
    with pytest.raises(ValueError, match="a root cannot be a branch"):
        pack([(tree[0]._replace(scored=True),)], Shape(1, 32, 32))
    with pytest.raises(ValueError, match="depth-first order"):
        pack([(tree[0]._replace(parent=1), tree[0])], Shape(2, 64, 32))


def test_trees_alone_have_a_row_each():
    trees = random_forest(3)
    batch = packed(trees, 64, alone=True)
    assert batch.tokens.shape[0] == len(trees)
    assert packed_contexts(batch) == total(trees)


@pytest.mark.parametrize("seed", SEEDS)
def test_merging_keeps_every_example_and_holds_a_shared_beginning_once(seed):
    random = np.random.default_rng(seed)
    stems = [random.integers(0, 3, random.integers(1, 6)).astype(np.int32) for _ in range(3)]
    prompts = [
        np.concatenate([stems[random.integers(3)], random.integers(0, 3, random.integers(0, 4))]) for _ in range(9)
    ]
    prompts = [prompt.astype(np.int32) for prompt in prompts]
    responses = [random_tokens(random, 1, 4) for _ in prompts]
    weights = [float(random.integers(1, 4)) for _ in prompts]
    trees = merge(prompts, responses, weights)
    examples = zip(prompts, responses, weights, strict=True)
    alone = [(Segment(prompt, -1), Segment(response, 0, True, weight)) for prompt, response, weight in examples]
    assert total(trees) == total(alone)
    # Each distinct prefix of a prompt is one token of the trunks: no more, no fewer.
    trunk = sum(len(segment.tokens) for tree in trees for segment in tree if not segment.scored)
    assert trunk == len({tuple(prompt[: n + 1]) for prompt in prompts for n in range(len(prompt))})
    assert len({int(tree[0].tokens[0]) for tree in trees}) == len(trees)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_radix_holds_every_beginning_once_and_says_where_each_segment_ends(seed):
    # Few different tokens, so that much begins alike.
    trees = [
        tuple(segment._replace(tokens=segment.tokens % 3) for segment in tree)
        for tree in random_forest(seed, most=30)
        for _ in range(2)
    ]
    merged, ends = radix(trees)
    assert total(merged) == Counter({(before, token, 1.0) for before, token, _ in total(trees)})
    paths = [(trees, number, index) for number, tree in enumerate(trees) for index in range(len(tree))]
    texts = [path_tokens(forest[number], index) for forest, number, index in paths]
    assert texts == [path_tokens(merged[number], index) for places in ends for number, index in places]
    beginnings = {text[: n + 1] for text in texts for n in range(len(text))}
    assert sum(len(segment.tokens) for tree in merged for segment in tree) == len(beginnings)
    assert [packed_contexts(packed([tree], 512)) for tree in merged] == [contexts(tree) for tree in merged]
    again, _ = radix(trees[::-1])
    assert str(again) == str(merged)


def test_splitting_repeats_a_short_trunk_before_it_breaks_what_hangs_on_it():
    sizes = [8, 6, 7, 5, 4, 6]  # the last token of each takes no place
    tree = (Segment(np.zeros(2, np.int32), -1), *(Segment(np.full(size, 1, np.int32), 0, True) for size in sizes))
    pieces = split_tree(tree, 12)
    assert [tree_length(piece) for piece, _ in pieces] == [12, 12, 12]


def test_merging_equal_prompts_gives_one_trunk_with_a_branch_for_each_response():
    prompt = np.array([5, 6, 7], np.int32)
    responses = [np.array([n], np.int32) for n in range(3)]
    (tree,) = merge([prompt] * 3, responses, [1.0, 2.0, 3.0])
    assert [segment.parent for segment in tree] == [-1, 0, 0, 0]
    assert [int(segment.tokens[0]) for segment in tree[1:]] == [0, 1, 2]
    assert [segment.weight for segment in tree[1:]] == [1.0, 2.0, 3.0]


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("slack", [0, 9, 40])
def test_splitting_repeats_trunks_scores_each_prediction_once_and_keeps_every_path(seed, slack):
    tree = random_tree(np.random.default_rng(seed), 12)
    limit = max(path_lengths(tree)) + slack
    pieces = split_tree(tree, limit)
    assert all(tree_length(piece) <= limit for piece, _ in pieces)
    assert total([piece for piece, _ in pieces]) == contexts(tree)
    assert set.union(*(leaf_paths(piece) for piece, _ in pieces)) == leaf_paths(tree)
    for piece, origin in pieces:
        for segment, index in zip(piece, origin, strict=True):
            np.testing.assert_array_equal(segment.tokens, tree[index].tokens)
        assert packed_contexts(packed([piece], limit)) == contexts(piece)


def test_a_tree_that_fits_is_not_split_and_a_path_that_cannot_fit_is_refused():
    tree = random_tree(np.random.default_rng(0), 5)
    assert split_tree(tree, tree_length(tree)) == [(tree, [0, 1, 2, 3, 4])]
    longest = max(path_lengths(tree))
    with pytest.raises(UserError, match=f"a text of {longest} tokens does not fit into rows of {longest - 1}"):
        split_tree(tree, longest - 1)


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


def test_planned_rows_are_multiples_for_the_devices_and_have_room_for_the_longest():
    steps = [random_forest(seed, most=30) for seed in range(5)]
    shapes = plan(steps, 128, 2, longest=70, rows_multiple=4)
    assert all(shape.rows % 4 == 0 for shape in shapes)
    assert all(70 <= shape.tokens <= 128 for shape in shapes)
    with pytest.raises(UserError, match="a text of 129 tokens does not fit into rows of 128"):
        plan(steps, 128, longest=129)


def test_with_a_program_for_each_step_no_row_is_wasted():
    steps = [random_forest(seed, most=30) for seed in range(5)]
    shapes = plan(steps, 64, len(steps))
    for trees, shape in zip(steps, shapes, strict=True):
        assert shape.rows == measure(split_trees(trees, shape.tokens), shape.tokens).rows


@pytest.mark.parametrize("seed", SEEDS)
def test_rows_are_never_overfull(seed):
    random = np.random.default_rng(seed)
    lengths = random.integers(1, 60, 40).tolist()
    rows = assign_rows(lengths, 64)
    assert np.bincount(rows, lengths).max() <= 64
    assert sorted(set(rows)) == list(range(max(rows) + 1))
    # First fit wastes little: no two rows could have been one.
    used = np.sort(np.bincount(rows, lengths))
    assert used[0] + used[1] > 64


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("tokens", [40, 64, 150, 320])
def test_a_block_of_queries_lists_just_the_blocks_of_keys_that_it_sees_something_of(seed, tokens):
    random = np.random.default_rng(seed)
    batch = packed([random_tree(random, 8, longest=tokens // 12) for _ in range(5)], tokens)
    i, j = np.arange(tokens)[:, None], np.arange(tokens)
    seen = (j <= i) & (i < batch.ends[:, None, :])
    blocks = visible_blocks(batch.ends)
    none, needed = -(-tokens // KEY_BLOCK), 0
    for row in range(len(blocks)):
        for number, listed in enumerate(blocks[row]):
            places = np.flatnonzero(seen[row, QUERY_BLOCK * number : QUERY_BLOCK * (number + 1)].any(0))
            expected = sorted(set((places // KEY_BLOCK).tolist()))
            assert listed.tolist() == expected + [none] * (len(listed) - len(expected))
            needed = max(needed, len(expected))
    assert blocks.shape[2] == needed and batch.blocks.shape[2] == -(-needed // 4) * 4
    assert np.array_equal(batch.blocks[:, :, :needed], blocks) and np.all(batch.blocks[:, :, needed:] == none)


def test_stacked_batches_list_as_many_blocks_of_keys():
    trees = [(Segment(np.arange(size, dtype=np.int32), -1),) for size in (20, 300)]
    shape = Shape(1, 320, 4)
    few, many = (pack([tree], shape) for tree in trees)
    both = stack_batches([few, many])
    assert few.blocks.shape[2] == 4 and both.blocks.shape == (2, 1, 5, 12)
    assert np.all(both.blocks[0, :, :, 4:] == 10) and np.array_equal(both.blocks[1], many.blocks)


def test_the_last_token_of_a_path_is_predicted_and_takes_no_place():
    prompt, answers = np.array([5, 6, 7], np.int32), [np.array([n], np.int32) for n in range(4)]
    tree = (Segment(prompt, -1), *(Segment(answer, 0, True) for answer in answers))
    batch = pack([tree], Shape(1, 3, 4))
    assert batch.tokens.tolist() == [[5, 6, 7]] and batch.ends.tolist() == [[3, 3, 3]]
    assert batch.source.tolist() == [[2] * 4] and batch.target.tolist() == [[0, 1, 2, 3]]


def test_lengths_and_predictions_are_counted_by_segment():
    tree = (
        Segment(np.zeros(4, np.int32), -1),
        Segment(np.zeros(3, np.int32), 0),
        Segment(np.zeros(2, np.int32), 1, True),
    )
    tree += (Segment(np.zeros(5, np.int32), 0, True),)
    assert (tree_length(tree), predictions(tree), path_lengths(tree)) == (12, 7, [4, 7, 9, 9])


def test_rows_filled_leaf_by_leaf_hold_every_path_and_score_each_segment_once():
    random = np.random.default_rng(5)
    trees = [random_tree(random, int(random.integers(1, 14))) for _ in range(20)]
    limit = max(max(path_lengths(tree)) for tree in trees) + 7
    rows = fill_rows(trees, limit)
    assert all(sum(tree_length(piece) for piece, _, _ in row) <= limit for row in rows)
    scored, paths = [], set()
    for row in rows:
        assert len({number for _, number, _ in row}) == len(row)
        for piece, number, members in row:
            for place, (segment, old) in enumerate(zip(piece, members, strict=True)):
                original = trees[number][old]
                np.testing.assert_array_equal(segment.tokens, original.tokens)
                assert segment.parent == (members.index(original.parent) if original.parent >= 0 else -1) < place
                paths.add((number, old))
                if segment.scored:
                    scored.append((number, old))
    assert paths == {(number, index) for number, tree in enumerate(trees) for index in range(len(tree))}
    assert sorted(scored) == [(n, i) for n, tree in enumerate(trees) for i, s in enumerate(tree) if s.scored]
    with pytest.raises(UserError, match="does not fit"):
        fill_rows(trees, 3)
