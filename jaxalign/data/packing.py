"""Trees in rows: which tree stands where, and the arrays that a program reads."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import flax.struct
import jax
import numpy as np
from jaxtyping import Array, Float32, Int32

from jaxalign.data.trees import Tree, path_lengths, predictions, row_lengths, tree_length
from jaxalign.errors import UserError
from jaxalign.models.attention import KEY_BLOCK, QUERY_BLOCK


@flax.struct.dataclass
class PackedBatch:
    """Trees packed into rows: B rows, T tokens, P predictions a row. See docs/how-it-works.md.

    tokens     token ids
    positions  position on the token's own root-to-leaf path
    ends       one past the last token of the subtree of this token's segment; own index + 1 for padding
    blocks     of each of the Q blocks of queries the blocks of keys that it sees something of (`visible_blocks`)
    source     index of the hidden state that predicts
    target     the token predicted
    branch     the branch it belongs to, numbered over the whole batch in the order of the trees
    weight     0 for padding
    preferences  what DPO compares, over the batch's branches (see objectives/dpo.py); None for anything else

    Micro-batches, and the batches of several adapters, are stacked: [..., B, T].
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
    """The shape of a packed batch: rows B, tokens T and predictions P of a row, and the blocks M of keys that a block
    of queries sees at most; a batch that needs more has more."""

    rows: int
    tokens: int
    predictions: int
    blocks: int = 0


def split_tree(tree: Tree, limit: int) -> list[tuple[Tree, list[int]]]:
    """Cut a tree into trees of at most `limit` tokens, each repeating the trunk that its leaves hang on.

    What does not fit is cut as near to the root as it can be, and the parts are joined again, longest first, below the
    trunks that they share. Returns (tree, the segment of the original that each of its segments is). A scored segment
    is scored in the first piece that has it alone, so nothing is counted twice.

    Raises:
        UserError: one root-to-leaf path alone is longer than the limit.
    """
    if tree_length(tree) <= limit:
        return [(tree, list(range(len(tree))))]
    lengths, sizes = path_lengths(tree), row_lengths(tree)
    if max(lengths) > limit:
        raise UserError(f"a text of {max(lengths)} tokens does not fit into rows of {limit}: raise training.row_length")
    # Of each subtree its parts: their tokens, from the subtree's root on, and their segments. The last is the forest's.
    parts: list[list[tuple[int, list[int]]]] = [[] for _ in range(len(tree) + 1)]
    for index in range(len(tree) - 1, -1, -1):
        size, below = sizes[index], parts[index]
        rows = assign_rows([tokens for tokens, _ in below], limit - lengths[index])
        joined = [(size, [index]) for _ in range(max(rows, default=0) + 1)]
        for (tokens, members), row in zip(below, rows, strict=True):
            joined[row] = (joined[row][0] + tokens, joined[row][1] + members)
        parts[tree[index].parent].extend(joined)
        parts[index] = []
    pieces = sorted(sorted(members) for _, members in parts[-1])
    result, done = [], set()
    for members in pieces:
        place = {old: new for new, old in enumerate(members)}
        segments = (
            tree[old]._replace(parent=place.get(tree[old].parent, -1), scored=tree[old].scored and old not in done)
            for old in members
        )
        result.append((tuple(segments), members))
        done.update(members)
    return result


def fill_rows(trees: Sequence[Tree], limit: int) -> list[list[tuple[Tree, int, list[int]]]]:
    """Fill rows of at most `limit` tokens with the leaves of the trees, each with the trunk it hangs on.

    Leaves go in their order, but where the next one does not fit, the longest of the next `AHEAD` that does goes first.
    A trunk is repeated where a row ends inside it, and nowhere else. Returns for each row its pieces: (piece, the tree
    that it is of, the segment of it that each of its segments is). A scored segment is scored in the first piece alone.

    Raises:
        UserError: one root-to-leaf path alone is longer than the limit.
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
                paths = [added(leaf) for leaf in leaves[1:AHEAD]] if here else []
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
    done: set[tuple[int, int]] = set()
    result = []
    for row in rows:
        pieces = []
        for number, unsorted in row:
            tree, members = trees[number], sorted(unsorted)
            place = {old: new for new, old in enumerate(members)}
            piece = tuple(
                tree[old]._replace(
                    parent=place.get(tree[old].parent, -1), scored=tree[old].scored and (number, old) not in done
                )
                for old in members
            )
            done.update((number, old) for old in members)
            pieces.append((piece, number, members))
        result.append(pieces)
    return [row for row in result if row]


AHEAD = 16
"""Leaves among which `fill_rows` looks for one that still fits into a row."""


def assign_rows(lengths: Sequence[int], limit: int, alone: bool = False) -> list[int]:
    """Assign each tree to a row of at most `limit` tokens: longest first, into the first row with room. With `alone`
    every tree has a row to itself, as without packing. Raises ValueError if a tree is longer than a row."""
    if alone:
        return list(range(len(lengths)))
    if max(lengths, default=0) > limit:
        raise ValueError(f"a tree of {max(lengths)} tokens does not fit into rows of {limit}")
    # As many rows as trees, so that there is always one with room.
    room = np.full(len(lengths), limit)
    rows = [0] * len(lengths)
    for index in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        rows[index] = row = int((room >= lengths[index]).argmax())
        room[row] -= lengths[index]
    return rows


def measure(trees: Sequence[Tree], tokens: int, alone: bool = False) -> Shape:
    """Return the tight shape of these trees packed into rows of `tokens` tokens."""
    rows = assign_rows([tree_length(tree) for tree in trees], tokens, alone)
    counts = np.bincount(rows, [predictions(tree) for tree in trees]) if trees else np.zeros(1)
    return Shape(len(counts), tokens, max(int(counts.max()), 1))


def pack(trees: Sequence[Tree], shape: Shape, alone: bool = False, rows: Sequence[int] | None = None) -> PackedBatch:
    """Pack trees into one batch (NumPy) of the given shape; branches are numbered in the order of the trees.

    `rows` says which row each goes to; None assigns them (see `assign_rows`).

    Raises:
        ValueError: they do not fit.
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


def visible_blocks(ends: Int32[np.ndarray, "B T"]) -> Int32[np.ndarray, "B Q M"]:
    """Return int32 [B, Q, M]: of each block of queries the numbers of those blocks of keys that hold something it sees,
    in their order, filled with the number of all blocks; M is the most that one needs.

    Q is T / QUERY_BLOCK and there are T / KEY_BLOCK blocks of keys (see models/attention.py), rounded up.
    """
    rows, tokens = ends.shape
    first, count = np.arange(0, tokens, QUERY_BLOCK), -(-tokens // KEY_BLOCK)
    furthest = np.pad(ends, ((0, 0), (0, count * KEY_BLOCK - tokens))).reshape(rows, 1, count, KEY_BLOCK).max(3)
    seen = (np.arange(count) * KEY_BLOCK < first[:, None] + QUERY_BLOCK) & (furthest > first[:, None])
    order = np.argsort(~seen, axis=2, kind="stable")[:, :, : seen.sum(2).max()]
    return np.where(np.take_along_axis(seen, order, 2), order, count).astype(np.int32)


def widened(batch: PackedBatch, width: int) -> PackedBatch:
    """Return the batch with room for `width` blocks of keys a block of queries, but never less than it has."""
    more = max(width - batch.blocks.shape[2], 0)
    none = -(-batch.tokens.shape[1] // KEY_BLOCK)
    blocks = np.pad(batch.blocks, ((0, 0), (0, 0), (0, more)), constant_values=none)
    return batch.replace(blocks=blocks)  # type: ignore[attr-defined]


def stack_batches(batches: Sequence[PackedBatch]) -> PackedBatch:
    """Return batches of one shape stacked to [M, B, ...]."""
    width = max(batch.blocks.shape[2] for batch in batches)
    return jax.tree.map(lambda *leaves: np.stack(leaves), *(widened(batch, width) for batch in batches))


def _lay_out(tree: Tree, sizes: Sequence[int], offset: int) -> tuple[list[int], list[int]]:
    """Return for each segment its first index, and one past the last index of its subtree."""
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
    """Cut all trees to at most `limit` tokens (see `split_tree`)."""
    return [piece for tree in trees for piece, _ in split_tree(tree, limit)]


def rounded_up(count: int, multiple: int) -> int:
    """Return the least multiple of `multiple` that is at least `count`.

    >>> rounded_up(65, 32)
    96
    """
    return -(-count // multiple) * multiple
