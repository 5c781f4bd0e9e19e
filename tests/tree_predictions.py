"""What a tree predicts, read off the tree and read off a packed batch, in one form that tests can compare."""

from collections import Counter
from collections.abc import Iterable

import numpy as np
from tiny_model import random_tree

from jaxalign.data.packing import PackedBatch
from jaxalign.data.trees import Tree


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


def total(trees: Iterable[Tree]) -> Counter:
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
