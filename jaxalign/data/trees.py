"""Token trees: segments of tokens, each of which continues its parent.

The segments of a tree stand in depth-first order. A *branch* is a scored segment: one whose log-probability is wanted,
for a loss or a score. The last token of the parent predicts its first token, so one hidden state can have several
targets. No token reads the last token of a path, so it takes no place in a row: an answer of one token takes none.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Int32

Tokens = Int32[np.ndarray, " _"]
"""The token ids of a text. Each text has its own length."""


class Segment(NamedTuple):
    """A segment of a tree.

    tokens  its tokens, at least one
    parent  the index of its parent in the tree, -1 for a root
    scored  whether it is a branch
    weight  the weight of each of its tokens in a loss
    """

    tokens: Tokens
    parent: int
    scored: bool = False
    weight: float = 1.0


Tree = tuple[Segment, ...]


def text_tree(text: Tokens) -> Tree:
    """Return a text of at least two tokens as a tree that scores all of them but the first, which nothing predicts."""
    return (Segment(text[:1], -1), Segment(text[1:], 0, True))


def row_lengths(tree: Tree) -> list[int]:
    """Return for each segment the tokens that it takes in a row: all of them, or all but the last of a scored leaf."""
    inner = {segment.parent for segment in tree}
    return [len(s.tokens) - (s.scored and index not in inner) for index, s in enumerate(tree)]


def tree_length(tree: Tree) -> int:
    """Return the number of tokens that a tree takes in a row."""
    return sum(row_lengths(tree))


def predictions(tree: Tree) -> int:
    """Return the number of predictions of a tree, which is the number of tokens of its scored segments."""
    return sum(len(segment.tokens) for segment in tree if segment.scored)


def path_lengths(tree: Tree) -> list[int]:
    """Return for each segment the number of tokens from the start of the root to its own end."""
    lengths: list[int] = []
    for segment in tree:
        lengths.append(len(segment.tokens) + (lengths[segment.parent] if segment.parent >= 0 else 0))
    return lengths


def shared_length(paths: Sequence[Tokens]) -> int:
    """Return how many tokens all of these begin with in common; at least one is needed."""
    size = min(map(len, paths))
    for path in paths[1:]:
        differ = np.flatnonzero(path[:size] != paths[0][:size])
        size = int(differ[0]) if len(differ) else size
    return size


class _Node:
    """A segment of a radix tree while it is built; `place` is its final (tree, segment)."""

    __slots__ = ("children", "parent", "place", "scored", "tokens")

    def __init__(self, tokens: Tokens, parent: "_Node | None", scored: bool):
        self.tokens, self.parent, self.scored = tokens, parent, scored
        self.children: dict[int, _Node] = {}
        self.place: tuple[int, int] = (-1, -1)


def _descend(node: _Node, tokens: Tokens, scored: bool) -> _Node:
    """Follow `tokens` down from the end of `node`, and add those that are missing; return the node that they end in."""
    while len(tokens):
        first = int(tokens[0])
        child = node.children.get(first)
        if child is None:
            child = node.children[first] = _Node(tokens, node, scored)
            return child
        shared = shared_length([child.tokens, tokens])
        if shared < len(child.tokens):
            # The lower part stays the same object, because segments that ended in it must still end there.
            upper = node.children[first] = _Node(child.tokens[:shared], node, child.scored)
            child.tokens, child.parent = child.tokens[shared:], upper
            upper.children[int(child.tokens[0])] = child
            child = upper
        child.scored = child.scored or scored
        node, tokens = child, tokens[shared:]
    return node


def radix(trees: Sequence[Tree]) -> tuple[list[Tree], list[list[tuple[int, int]]]]:
    """Merge trees into a radix tree: paths that begin alike share these tokens. There is one tree for each first token.

    Returns the merged trees, and for each segment of `trees` the (tree, segment) that it ends in. A segment may become
    several; those that come from a scored segment are scored, with weight 1. Siblings stand in the order of their
    tokens, so the result does not depend on the order of `trees`.
    """
    top, ends = _Node(np.zeros(0, np.int32), None, False), []
    for tree in trees:
        nodes: list[_Node] = []
        for segment in tree:
            above = nodes[segment.parent] if segment.parent >= 0 else top
            nodes.append(_descend(above, segment.tokens, segment.scored))
        ends.append(nodes)
    merged: list[list[Segment]] = []
    stack = [top.children[token] for token in sorted(top.children, reverse=True)]
    while stack:
        node = stack.pop()
        if node.parent is top:
            merged.append([])
        parent = -1 if node.parent is top else node.parent.place[1]  # type: ignore[union-attr]
        node.place = (len(merged) - 1, len(merged[-1]))
        merged[-1].append(Segment(node.tokens, parent, node.scored))
        stack.extend(node.children[token] for token in sorted(node.children, reverse=True))
    return [tuple(segments) for segments in merged], [[node.place for node in nodes] for nodes in ends]


def merge(prompts: Sequence[Tokens], responses: Sequence[Tokens], weights: Sequence[float]) -> list[Tree]:
    """Return the trees of examples: prompts that begin alike share these tokens, and each response is a branch."""
    trunks, ends = radix([(Segment(prompt, -1),) for prompt in prompts])
    ended: dict[tuple[int, int], list[int]] = {}
    for index, (place,) in enumerate(ends):
        ended.setdefault(place, []).append(index)
    trees = []
    for number, trunk in enumerate(trunks):
        segments: list[Segment] = []
        moved: list[int] = []
        for old, segment in enumerate(trunk):
            here = len(segments)
            segments.append(segment._replace(parent=moved[segment.parent] if segment.parent >= 0 else -1))
            segments.extend(Segment(responses[i], here, True, weights[i]) for i in ended.get((number, old), ()))
            moved.append(here)
        trees.append(tuple(segments))
    return trees
