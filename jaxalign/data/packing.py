"""Packing: from token trees to rows of one length, and to the arrays of a batch."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import flax.struct
import jax
import numpy as np
from jaxtyping import Array, Float32, Int32

from jaxalign.data.key_blocks import visible_blocks
from jaxalign.data.trees import Tree, path_lengths, predictions, row_lengths, tree_length
from jaxalign.errors import UserError
from jaxalign.models.attention import KEY_BLOCK


@flax.struct.dataclass
class PackedBatch:
    """Token trees packed into B rows of T tokens and P predictions. docs/how-it-works.md explains it.

    tokens     token ids
    positions  position on the token's own root-to-leaf path
    ends       one past the last token of the subtree of this token's segment; own index + 1 for padding
    blocks     for each of the Q blocks of queries the blocks of keys that it sees (`visible_blocks`)
    source     index of the hidden state that predicts
    target     the token that is predicted
    branch     the branch of the target, numbered over the whole batch in the order of the trees
    weight     the weight of the prediction in a loss, 0 for padding
    preferences  the pairs of the batch's branches (`objectives.dpo.Preferences`) for DPO, otherwise None

    Micro-batches, and the batches of several adapters, are stacked: then every field has further axes in front.
    """

    tokens: Int32[Array | np.ndarray, "... B T"]
    positions: Int32[Array | np.ndarray, "... B T"]
    ends: Int32[Array | np.ndarray, "... B T"]
    blocks: Int32[Array | np.ndarray, "... B Q M"]
    source: Int32[Array | np.ndarray, "... B P"]
    target: Int32[Array | np.ndarray, "... B P"]
    branch: Int32[Array | np.ndarray, "... B P"]
    weight: Float32[Array | np.ndarray, "... B P"]
    preferences: Any = None


@dataclasses.dataclass(frozen=True, order=True)
class Shape:
    """The shape of a packed batch: B rows of T tokens and P predictions.

    `blocks` is M, the number of blocks of keys that a block of queries sees at most; a batch that needs more gets more.
    """

    rows: int
    tokens: int
    predictions: int
    blocks: int = 0


def split_tree(tree: Tree, limit: int) -> list[tuple[Tree, list[int]]]:
    """Cut a tree into pieces of at most `limit` tokens. Each piece repeats the ancestors of its segments.

    A tree that does not fit is cut as near to the root as possible, and the parts are joined again, longest first,
    below the ancestors that they share. Returns for each piece (piece, for each of its segments its index in the
    original tree). If several pieces repeat a scored segment, it is scored in the first one only.

    Raises:
        UserError: a single path from root to leaf is longer than the limit.
    """
    if tree_length(tree) <= limit:
        return [(tree, list(range(len(tree))))]
    lengths, sizes = path_lengths(tree), row_lengths(tree)
    if max(lengths) > limit:
        raise UserError(f"a text of {max(lengths)} tokens does not fit into rows of {limit}: raise training.row_length")
    # The parts of each subtree: their tokens, counted from its root, and their segments. The last entry is the tree's.
    parts: list[list[tuple[int, list[int]]]] = [[] for _ in range(len(tree) + 1)]
    for index in range(len(tree) - 1, -1, -1):
        size, below = sizes[index], parts[index]
        rows = assign_rows([tokens for tokens, _ in below], limit - lengths[index])
        joined = [(size, [index]) for _ in range(max(rows, default=0) + 1)]
        for (tokens, members), row in zip(below, rows, strict=True):
            joined[row] = (joined[row][0] + tokens, joined[row][1] + members)
        parts[tree[index].parent].extend(joined)
        parts[index] = []
    done: set[int] = set()
    return [(_piece(tree, members, done), members) for members in sorted(sorted(part) for _, part in parts[-1])]


def _piece(tree: Tree, members: Sequence[int], done: set[int]) -> Tree:
    """Return some segments of a tree as a tree. Those in `done`, which earlier pieces have, are not scored again."""
    place = {old: new for new, old in enumerate(members)}
    piece = tuple(
        tree[old]._replace(parent=place.get(tree[old].parent, -1), scored=tree[old].scored and old not in done)
        for old in members
    )
    done.update(members)
    return piece


def fill_rows(trees: Sequence[Tree], limit: int) -> list[list[tuple[Tree, int, list[int]]]]:
    """Fill rows of at most `limit` tokens with the leaves of trees, each with its ancestors.

    The leaves keep their order, but if the next one does not fit, the longest of the next `LOOKAHEAD` that fits goes
    first. A row that begins inside a tree repeats the ancestors of its first leaf. Returns for each row its pieces:
    (piece, index of its tree, for each of its segments its index in that tree). If several pieces repeat a scored
    segment, it is scored in the first one only.

    Raises:
        UserError: a single path from root to leaf is longer than the limit.
    """
    rows: list[list[tuple[int, list[int]]]] = [[]]
    used = 0
    for number, tree in enumerate(trees):
        inner, sizes = {segment.parent for segment in tree}, row_lengths(tree)
        leaves = [index for index in range(len(tree)) if index not in inner]
        here: set[int] = set()

        def added(leaf: int, tree: Tree = tree, here: set[int] = here) -> list[int]:
            """Return the segments on a leaf's path that the row does not hold yet."""
            path = []
            while leaf >= 0 and leaf not in here:
                path.append(leaf)
                leaf = tree[leaf].parent
            return path

        while leaves:
            room, place, path = limit - used, 0, added(leaves[0])
            tokens = sum(sizes[index] for index in path)
            if tokens > room:
                paths = [added(leaf) for leaf in leaves[1:LOOKAHEAD]] if here else []
                fitting = [
                    (size, -ahead, found)
                    for ahead, found in enumerate(paths, start=1)
                    if (size := sum(sizes[index] for index in found)) <= room
                ]
                if not fitting:
                    rows.append([])
                    used = 0
                    here.clear()
                    path = added(leaves[0])
                    tokens = sum(sizes[index] for index in path)
                    if tokens > limit:
                        raise UserError(f"a text of {tokens} tokens does not fit into rows of {limit}")
                else:
                    tokens, back, path = max(fitting)
                    place = -back
            del leaves[place]
            if not here:
                rows[-1].append((number, []))
            rows[-1][-1][1].extend(path)
            here.update(path)
            used += tokens
    done: list[set[int]] = [set() for _ in trees]
    return [
        [(_piece(trees[number], sorted(members), done[number]), number, sorted(members)) for number, members in row]
        for row in rows
        if row
    ]


LOOKAHEAD = 16
"""Number of leaves among which `fill_rows` looks for one that still fits into a row."""


def assign_rows(lengths: Sequence[int], limit: int, alone: bool = False) -> list[int]:
    """Return the row of each tree, given their lengths: longest first, into the first row of `limit` tokens with room.

    With `alone` each tree gets a row of its own, as without packing.

    Raises:
        ValueError: a tree is longer than a row.
    """
    if alone:
        return list(range(len(lengths)))
    if max(lengths, default=0) > limit:
        raise ValueError(f"a tree of {max(lengths)} tokens does not fit into rows of {limit}")
    # There are as many rows as trees, so one always has room.
    room = np.full(len(lengths), limit)
    rows = [0] * len(lengths)
    for index in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        rows[index] = row = int((room >= lengths[index]).argmax())
        room[row] -= lengths[index]
    return rows


def measure(trees: Sequence[Tree], tokens: int, alone: bool = False) -> Shape:
    """Return the smallest shape that trees fit into, with rows of `tokens` tokens (`alone` as in `assign_rows`)."""
    rows = assign_rows([tree_length(tree) for tree in trees], tokens, alone)
    counts = np.bincount(rows, [predictions(tree) for tree in trees]) if trees else np.zeros(1)
    return Shape(len(counts), tokens, max(int(counts.max()), 1))


def pack(trees: Sequence[Tree], shape: Shape, alone: bool = False, rows: Sequence[int] | None = None) -> PackedBatch:
    """Return trees packed into a batch of this shape, as NumPy arrays.

    `rows` gives the row of each tree; without it, `assign_rows` chooses them.

    Raises:
        ValueError: the trees do not fit.
    """
    if rows is None:
        rows = assign_rows([tree_length(tree) for tree in trees], shape.tokens, alone)
    if max(rows, default=0) >= shape.rows:
        raise ValueError(f"{max(rows) + 1} rows of trees do not fit into {shape}")
    tokens = np.zeros((shape.rows, shape.tokens), np.int32)
    positions = np.zeros_like(tokens)
    ends = np.broadcast_to(np.arange(1, shape.tokens + 1, dtype=np.int32), tokens.shape).copy()
    source = np.zeros((shape.rows, shape.predictions), np.int32)
    target, branch = np.zeros_like(source), np.zeros_like(source)
    weight = np.zeros(source.shape, np.float32)
    used, predicted, branches = [0] * shape.rows, [0] * shape.rows, 0
    for tree, row in zip(trees, rows, strict=True):
        sizes = row_lengths(tree)
        starts, stops = _lay_out(tree, sizes, used[row])
        lengths = path_lengths(tree)
        for index, segment in enumerate(tree):
            size, start, stop = len(segment.tokens), starts[index], starts[index] + sizes[index]
            first = lengths[index] - size
            tokens[row, start:stop] = segment.tokens[: stop - start]
            positions[row, start:stop] = np.arange(first, first + stop - start)
            ends[row, start:stop] = stops[index]
            if not segment.scored:
                continue
            if segment.parent < 0:
                raise ValueError("a root cannot be a branch: nothing predicts its first token")
            parent_last = starts[segment.parent] + len(tree[segment.parent].tokens) - 1
            place = slice(predicted[row], predicted[row] + size)
            source[row, place] = np.concatenate([[parent_last], np.arange(start, start + size - 1)])
            target[row, place] = segment.tokens
            branch[row, place] = branches
            weight[row, place] = segment.weight
            predicted[row] += size
            branches += 1
        used[row] += sum(sizes)
    blocks = visible_blocks(ends)
    batch = PackedBatch(tokens, positions, ends, blocks, source, target, branch, weight)
    return widened(batch, max(shape.blocks, rounded_up(blocks.shape[2], 4)))


def widened(batch: PackedBatch, width: int) -> PackedBatch:
    """Return the batch with lists of at least `width` blocks of keys."""
    more = max(width - batch.blocks.shape[2], 0)
    none = -(-batch.tokens.shape[1] // KEY_BLOCK)
    blocks = np.pad(batch.blocks, ((0, 0), (0, 0), (0, more)), constant_values=none)
    return batch.replace(blocks=blocks)  # type: ignore[attr-defined]


def stack_batches(batches: Sequence[PackedBatch]) -> PackedBatch:
    """Return batches of one shape stacked to [number of batches, B, ...]."""
    width = max(batch.blocks.shape[2] for batch in batches)
    return jax.tree.map(lambda *leaves: np.stack(leaves), *(widened(batch, width) for batch in batches))


def _lay_out(tree: Tree, sizes: Sequence[int], offset: int) -> tuple[list[int], list[int]]:
    """Return the first index of each segment in the row, and one past the last index of each segment's subtree."""
    starts: list[int] = []
    for size in sizes:
        starts.append(offset)
        offset += size
    stops = [start + size for start, size in zip(starts, sizes, strict=True)]
    for index in range(len(tree) - 1, -1, -1):
        parent = tree[index].parent
        if parent >= index:
            raise ValueError("a segment stands before its parent: trees are in depth-first order")
        if parent >= 0:
            stops[parent] = max(stops[parent], stops[index])
    return starts, stops


def split_trees(trees: Sequence[Tree], limit: int) -> list[Tree]:
    """Return the pieces of all trees, each of at most `limit` tokens (see `split_tree`)."""
    return [piece for tree in trees for piece, _ in split_tree(tree, limit)]


def rounded_up(count: int, multiple: int) -> int:
    """Return the smallest multiple of `multiple` that is not below `count`.

    >>> rounded_up(65, 32)
    96
    """
    return -(-count // multiple) * multiple
