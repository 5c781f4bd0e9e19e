"""Reading a model: the log-probability of every branch of many token trees."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from jaxalign.data.trees import (
    ATTENTION_COST,
    ROW_QUANTUM,
    PackedBatch,
    Shape,
    Tree,
    assign_rows,
    fill,
    pack,
    path_lengths,
    predictions,
    radix,
    split,
    tree_length,
)
from jaxalign.models.lora import Adapter
from jaxalign.models.transformer import Transformer
from jaxalign.training.programs import Programs
from jaxalign.training.step import reader


@dataclasses.dataclass(frozen=True)
class Scorer:
    """A model that reads trees: base parameters, an adapter and its scale (0 reads the bare base).

    `row_length` bounds a row, `batch_tokens` the tokens of one pass. `share` computes once what paths begin with alike,
    within a tree and between trees; without it each tree is computed as it is given.
    """

    model: Transformer
    params: Any
    adapter: Adapter
    scale: float
    programs: Programs
    row_length: int = 1024
    batch_tokens: int = 2048
    share: bool = True
    shapes: list[Shape] = dataclasses.field(default_factory=list)
    """Of the passes so far: one that does for another call as well saves it a compilation."""

    def score(
        self, trees: Sequence[Tree], progress: Callable[[int, int], None] = lambda done, total: None
    ) -> list[np.ndarray]:
        """Return for each tree float64 [S]: the summed log-probability of each scored segment given what stands
        before it on its path, 0 for the others. An answer of nested segments is the sum along its path.

        `progress(done, total)` is told the number of passes. A tree longer than a row is cut, its trunk repeated; a
        path longer than `row_length` makes the rows longer.
        """
        if not trees:
            return []
        if self.share:
            shared, ends = radix(trees)
        else:
            shared = trees
            ends = [[(number, segment) for segment in range(len(tree))] for number, tree in enumerate(trees)]
        results = [np.zeros(len(tree)) for tree in shared]
        read = reader(self.model, self.params, self.adapter, self.scale, self.programs)
        batches = pack_for_reading(shared, self.row_length, self.batch_tokens, self.shapes)
        for done, (batch, owners) in enumerate(batches):
            log_probs = read(batch)
            counted = np.asarray(batch.weight) != 0
            sums = np.bincount(np.asarray(batch.branch)[counted], log_probs[counted], minlength=len(owners))
            for (tree, segment), value in zip(owners, sums, strict=True):
                results[tree][segment] = value
            progress(done + 1, len(batches))
        return [_hand_back(tree, places, shared, results) for tree, places in zip(trees, ends, strict=True)]


def _hand_back(
    tree: Tree, places: Sequence[tuple[int, int]], shared: Sequence[Tree], results: Sequence[np.ndarray]
) -> np.ndarray:
    """Return float64 [S]: of each scored segment the sum over the shared segments that it has become."""
    scores = np.zeros(len(tree))
    for index, segment in enumerate(tree):
        if segment.scored:
            (number, place), start = places[index], places[segment.parent][1]
            while place != start:
                scores[index] += results[number][place]
                place = shared[number][place].parent
    return scores


SPARE = 1.3
"""How much dearer than the best shape an old one may be, which needs no compilation."""


def pack_for_reading(
    trees: Sequence[Tree], row_length: int, batch_tokens: int, shapes: list[Shape] | None = None
) -> list[tuple[PackedBatch, list[tuple[int, int]]]]:
    """Return batches of one common shape, and for each of their branches the (tree, segment) that it is.

    The shape is one of `shapes` where that does, or else the best for these trees, which joins them.
    """
    longest = max(max(path_lengths(tree)) for tree in trees)
    first = -(-longest // ROW_QUANTUM) * ROW_QUANTUM
    known = [] if shapes is None else shapes
    lengths = {*range(first, max(row_length, first) + 1, 4 * ROW_QUANTUM)}
    lengths |= {shape.tokens for shape in known if shape.tokens >= first}
    pieces, rows = {}, {}
    for tokens in sorted(lengths):
        pieces[tokens], rows[tokens] = _lay_out(trees, tokens)

    def most(tokens: int) -> int:
        return int(np.bincount(rows[tokens], [predictions(piece) for piece, _, _ in pieces[tokens]]).max())

    def cost(tokens: int, together: int) -> float:
        return -(-(max(rows[tokens]) + 1) // together) * together * tokens * (1 + tokens * ATTENTION_COST)

    best = min(pieces, key=lambda tokens: cost(tokens, 1))
    size = max(min(batch_tokens // best, max(rows[best]) + 1), 1)
    shape = Shape(size, best, -(-max(most(best), 1) // 16) * 16)
    old = [one for one in known if one.tokens in pieces and one.predictions >= most(one.tokens)]
    old = [one for one in old if cost(one.tokens, one.rows) <= SPARE * cost(best, size)]
    if old:
        shape = min(old, key=lambda one: cost(one.tokens, one.rows))
    else:
        known.append(shape)
    batches = []
    for start in range(0, max(rows[shape.tokens]) + 1, shape.rows):
        places = [n for n, row in enumerate(rows[shape.tokens]) if start <= row < start + shape.rows]
        members = [pieces[shape.tokens][n] for n in places]
        owners = [
            (index, origin[place])
            for piece, index, origin in members
            for place, segment in enumerate(piece)
            if segment.scored
        ]
        there = [rows[shape.tokens][n] - start for n in places]
        batches.append((pack([piece for piece, _, _ in members], shape, rows=there), owners))
    return batches


def _lay_out(trees: Sequence[Tree], tokens: int) -> tuple[list[tuple[Tree, int, list[int]]], list[int]]:
    """Return (piece, tree, its segments there) of all trees in rows of `tokens`, and the row of each: whole trees,
    longest first, or leaf by leaf, whichever takes fewer rows."""
    pieces = [(piece, index, origin) for index, tree in enumerate(trees) for piece, origin in split(tree, tokens)]
    rows = assign_rows([tree_length(piece) for piece, _, _ in pieces], tokens)
    filled = fill(trees, tokens)
    if len(filled) <= max(rows):
        return [piece for row in filled for piece in row], [n for n, row in enumerate(filled) for _ in row]
    return pieces, rows
