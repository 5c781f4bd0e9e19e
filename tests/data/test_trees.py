from collections import Counter

import numpy as np
import pytest
from tiny_model import packed, random_tokens
from tree_predictions import contexts, packed_contexts, path_tokens, random_forest, total

from jaxalign.data.trees import Segment, merge, path_lengths, predictions, radix, tree_length

SEEDS = range(12)


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


def test_merging_equal_prompts_gives_one_trunk_with_a_branch_for_each_response():
    prompt = np.array([5, 6, 7], np.int32)
    responses = [np.array([n], np.int32) for n in range(3)]
    (tree,) = merge([prompt] * 3, responses, [1.0, 2.0, 3.0])
    assert [segment.parent for segment in tree] == [-1, 0, 0, 0]
    assert [int(segment.tokens[0]) for segment in tree[1:]] == [0, 1, 2]
    assert [segment.weight for segment in tree[1:]] == [1.0, 2.0, 3.0]


def test_lengths_and_predictions_are_counted_by_segment():
    tree = (
        Segment(np.zeros(4, np.int32), -1),
        Segment(np.zeros(3, np.int32), 0),
        Segment(np.zeros(2, np.int32), 1, True),
    )
    tree += (Segment(np.zeros(5, np.int32), 0, True),)
    assert (tree_length(tree), predictions(tree), path_lengths(tree)) == (12, 7, [4, 7, 9, 9])
