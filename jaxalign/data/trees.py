"""Token trees, and the packed batch that carries them to the model.

A tree's segments stand in depth-first order. A *branch* is a scored segment: the tokens that a loss or a reading is
about. Its first token is predicted from the last token of its parent, so one hidden state can have several targets. The
last token of a path is predicted and read by nothing, so it has no place in a row: an answer of one token takes none.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Int32

Tokens = Int32[np.ndarray, " _"]
"""The token ids of one text, as long as it is."""


class Segment(NamedTuple):
    """At least one token; the index of the parent segment (-1 for a root); whether it is a branch, and how
    much each of its tokens weighs in a loss."""

    tokens: Tokens
    parent: int
    scored: bool = False
    weight: float = 1.0


Tree = tuple[Segment, ...]


def row_lengths(tree: Tree) -> list[int]:
    """Return for each segment how many tokens it takes in a row: all, but of a scored leaf all but the last."""
    inner = {segment.parent for segment in tree}
    return [len(s.tokens) - (s.scored and index not in inner) for index, s in enumerate(tree)]


def tree_length(tree: Tree) -> int:
    """Return the number of tokens that a tree takes in a row, each segment counted once."""
    return sum(row_lengths(tree))


def predictions(tree: Tree) -> int:
    """Return the number of predictions of a tree: the tokens of its scored segments."""
    return sum(len(segment.tokens) for segment in tree if segment.scored)


def path_lengths(tree: Tree) -> list[int]:
    """Return for each segment the number of tokens from the root to its end."""
    lengths: list[int] = []
    for segment in tree:
        lengths.append(len(segment.tokens) + (lengths[segment.parent] if segment.parent >= 0 else 0))
    return lengths


class _Node:
    """A segment of a growing radix tree; `place` is where it ends up: (tree, segment)."""

    __slots__ = ("children", "parent", "place", "scored", "tokens")

    def __init__(self, tokens: Tokens, parent: "_Node | None", scored: bool):
        self.tokens, self.parent, self.scored = tokens, parent, scored
        self.children: dict[int, _Node] = {}
        self.place: tuple[int, int] = (-1, -1)


def _descend(node: _Node, tokens: Tokens, scored: bool) -> _Node:
    """Follow `tokens` down from the end of `node`, adding what is not there yet; return the node that they end in."""
    while len(tokens):
        first = int(tokens[0])
        child = node.children.get(first)
        if child is None:
            child = node.children[first] = _Node(tokens, node, scored)
            return child
        size = min(len(child.tokens), len(tokens))
        differ = np.flatnonzero(child.tokens[:size] != tokens[:size])
        shared = int(differ[0]) if len(differ) else size
        if shared < len(child.tokens):
            # The lower part stays the same node, so that what ended in it still does.
            upper = node.children[first] = _Node(child.tokens[:shared], node, child.scored)
            child.tokens, child.parent = child.tokens[shared:], upper
            upper.children[int(child.tokens[0])] = child
            child = upper
        child.scored = child.scored or scored
        node, tokens = child, tokens[shared:]
    return node


def radix(trees: Sequence[Tree]) -> tuple[list[Tree], list[list[tuple[int, int]]]]:
    """Return trees that hold what these trees' paths begin with alike once, one tree for each first token, and for each
    segment given the (tree, segment) that it now ends in.

    A segment given begins after the end of its parent, and may have become several. Those of a scored segment are
    scored, with weight 1. Siblings stand in the order of their tokens, so the order of `trees` changes nothing.
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
    """Return the trees of these examples: what prompts begin with alike is there once (`radix`), and each response is a
    branch of its own.
    """
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
