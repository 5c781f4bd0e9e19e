"""Packing many trees into the passes of a scorer, which all have one shape."""

import dataclasses
from collections.abc import Sequence
from functools import cached_property

import numpy as np

from jaxalign.data.bucketing import ATTENTION_COST, row_quantum
from jaxalign.data.packing import PackedBatch, Shape, assign_rows, fill_rows, pack, rounded_up, split_tree, widened
from jaxalign.data.trees import Tree, path_lengths, predictions, tree_length
from jaxalign.parallel.processor import on_cpu

SPARE = 1.3
"""A known shape may cost this many times as much as the best one, because it is compiled already (except for lists of
blocks of keys that have another width)."""

PASS_COST = 64
"""What each pass costs beside its tokens, in tokens: on a CPU it copies all weights once."""

Owner = tuple[int, int]
"""(tree, segment): the scored segment that a branch of a batch belongs to."""

Piece = tuple[Tree, int, list[int]]
"""(piece, tree, origin): a tree or a part of it, the tree's number, and for each segment of the piece the index of the
tree's segment from which it comes."""


def pack_for_reading(
    groups: Sequence[Sequence[Tree]], row_length: int, batch_tokens: int, shapes: list[Shape] | None = None
) -> list[list[tuple[PackedBatch, list[Owner]]]]:
    """Return the passes that read all trees. A pass has a batch for each group, with the owner of each of its branches.

    All batches have one shape, except for the width of their lists of blocks of keys, which has few values. A group
    whose trees are all in earlier passes gets empty batches.

    Args:
        groups: the trees of each group, which are read with one adapter; at least one tree in all.
        row_length: the largest number of tokens in a row. A longer path makes the rows longer.
        batch_tokens: the largest number of tokens in a batch of several rows. On a CPU, a single row may have half as
            many more, because it repeats less of what several trees begin with.
        shapes: the shapes that are known already. One of them is used if it costs little more than the best one.
            Otherwise the best one is used, and added to them.
    """
    known = [] if shapes is None else shapes
    layouts = _layouts(groups, row_length, batch_tokens, known)
    best = min(layouts.values(), key=lambda layout: layout.cost(layout.together(batch_tokens)))
    size = best.together(batch_tokens)
    shape = Shape(size, best.tokens, rounded_up(max(best.predictions, 1), 16))
    old = [one for one in known if one.tokens in layouts and one.predictions >= layouts[one.tokens].predictions]
    old = [one for one in old if layouts[one.tokens].cost(one.rows) <= SPARE * best.cost(size)]
    if old:
        shape = min(old, key=lambda one: layouts[one.tokens].cost(one.rows))
    else:
        known.append(shape)
    chosen = layouts[shape.tokens]
    passes = [
        [_batch(pieces, rows, shape, start) for pieces, rows in chosen.groups]
        for start in range(0, chosen.rows, shape.rows)
    ]
    widest = max(batch.blocks.shape[2] for batches in passes for batch, _ in batches)
    return [[(widened(batch, _width(batch, widest)), owners) for batch, owners in batches] for batches in passes]


@dataclasses.dataclass(frozen=True)
class _Layout:
    """The trees of all groups in rows of one length."""

    tokens: int
    """The length of a row."""
    groups: list[tuple[list[Piece], list[int]]]
    """For each group its pieces, and the row of each piece."""

    @cached_property
    def rows(self) -> int:
        """The number of rows of the largest group."""
        return max(max(rows, default=-1) + 1 for _, rows in self.groups)

    @cached_property
    def predictions(self) -> int:
        """The largest number of predictions in a row."""
        counts = (np.bincount(rows, [predictions(p) for p, _, _ in pieces]) for pieces, rows in self.groups if rows)
        return int(max(count.max() for count in counts))

    def together(self, batch_tokens: int) -> int:
        """Return the number of rows in a batch of at most `batch_tokens` tokens; it is at least one."""
        return max(min(batch_tokens // self.tokens, self.rows), 1)

    def cost(self, together: int) -> float:
        """Return the approximate cost of reading with `together` rows in a batch, in tokens of short rows."""
        passes = -(-self.rows // together)
        return passes * (together * self.tokens * (1 + self.tokens * ATTENTION_COST) + PASS_COST)


def _layouts(
    groups: Sequence[Sequence[Tree]], row_length: int, batch_tokens: int, known: Sequence[Shape]
) -> dict[int, _Layout]:
    """Return a layout for each row length: about eight lengths, because a layout takes time, and the known ones."""
    longest = max(max(path_lengths(tree)) for trees in groups for tree in trees)
    quantum = row_quantum()
    first = rounded_up(longest, quantum)
    most = batch_tokens + batch_tokens // 2 if on_cpu() else batch_tokens
    last = max(min(row_length, most), first)
    step = max(128 // quantum, (last - first) // (8 * quantum)) * quantum
    lengths = {*range(first, last + 1, step)}
    lengths |= {shape.tokens for shape in known if first <= shape.tokens <= last}
    return {tokens: _Layout(tokens, [_lay_out(trees, tokens) for trees in groups]) for tokens in sorted(lengths)}


def _lay_out(trees: Sequence[Tree], tokens: int) -> tuple[list[Piece], list[int]]:
    """Return the pieces of all trees in rows of `tokens`, and the row of each piece.

    Rows are filled either with whole trees, longest first, or leaf by leaf, whichever takes fewer rows.
    """
    pieces = [(piece, index, origin) for index, tree in enumerate(trees) for piece, origin in split_tree(tree, tokens)]
    rows = assign_rows([tree_length(piece) for piece, _, _ in pieces], tokens)
    filled = fill_rows(trees, tokens)
    if len(filled) <= max(rows, default=0):
        return [piece for row in filled for piece in row], [n for n, row in enumerate(filled) for _ in row]
    return pieces, rows


def _batch(pieces: Sequence[Piece], rows: Sequence[int], shape: Shape, start: int) -> tuple[PackedBatch, list[Owner]]:
    """Return the rows of a layout from `start` on as a batch, and the owner of each of its branches."""
    places = [n for n, row in enumerate(rows) if start <= row < start + shape.rows]
    members = [pieces[n] for n in places]
    owners = [
        (index, origin[place])
        for piece, index, origin in members
        for place, segment in enumerate(piece)
        if segment.scored
    ]
    return pack([piece for piece, _, _ in members], shape, rows=[rows[n] - start for n in places]), owners


def _width(batch: PackedBatch, widest: int) -> int:
    """Return the width of a batch's lists of blocks of keys: the widest one halved as often as it still fits.

    Each width is a program, which takes seconds to compile; wider lists make a pass a few percent slower.
    """
    width = widest
    while width // 2 >= batch.blocks.shape[2]:
        width //= 2
    return width
