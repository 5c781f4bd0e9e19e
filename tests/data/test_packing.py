import numpy as np
import pytest
from tiny_model import packed, random_tokens, random_tree
from tree_predictions import contexts, leaf_paths, packed_contexts, random_forest, total

from jaxalign.data.key_blocks import most_blocks, visible_blocks
from jaxalign.data.packing import Shape, assign_rows, fill_rows, pack, split_tree, stack_batches
from jaxalign.data.trees import Segment, path_lengths, tree_length
from jaxalign.errors import UserError
from jaxalign.models.attention import KEY_BLOCK, QUERY_BLOCK

SEEDS = range(12)


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


def test_splitting_repeats_a_short_trunk_before_it_breaks_what_hangs_on_it():
    sizes = [8, 6, 7, 5, 4, 6]  # the last token of each takes no place
    tree = (Segment(np.zeros(2, np.int32), -1), *(Segment(np.full(size, 1, np.int32), 0, True) for size in sizes))
    pieces = split_tree(tree, 12)
    assert [tree_length(piece) for piece, _ in pieces] == [12, 12, 12]


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


@pytest.mark.parametrize("longest", [1, 2, 33, 34, 90, 400])
def test_texts_of_some_length_need_no_more_blocks_of_keys_than_foretold(longest):
    needed = []
    for before in range(QUERY_BLOCK + 1):  # where the text begins in its blocks
        ends = np.full((1, 512), before, np.int32)
        ends[0, before:] = np.minimum(before + longest * (1 + np.arange(512 - before) // longest), 512)
        needed.append(visible_blocks(ends).shape[2])
    assert max(needed) == most_blocks(longest, 512)


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
