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
        batches = pack_for_reading(shared, self.row_length, self.batch_tokens)
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


def pack_for_reading(
    trees: Sequence[Tree], row_length: int, batch_tokens: int
) -> list[tuple[PackedBatch, list[tuple[int, int]]]]:
    """Return batches of one common shape, and for each of their branches the (tree, segment) that it is."""
    longest = max(max(path_lengths(tree)) for tree in trees)
    first = -(-longest // ROW_QUANTUM) * ROW_QUANTUM
    pieces = {
        tokens: [(piece, index, origin) for index, tree in enumerate(trees) for piece, origin in split(tree, tokens)]
        for tokens in range(first, max(row_length, first) + 1, 4 * ROW_QUANTUM)
    }

    def cost(tokens: int) -> float:
        rows = max(assign_rows([tree_length(piece) for piece, _, _ in pieces[tokens]], tokens)) + 1
        return rows * tokens * (1 + tokens * ATTENTION_COST)

    tokens = min(pieces, key=cost)
    chosen = pieces[tokens]
    rows = assign_rows([tree_length(piece) for piece, _, _ in chosen], tokens)
    size = max(min(batch_tokens // tokens, max(rows) + 1), 1)
    counts = np.bincount(rows, [predictions(piece) for piece, _, _ in chosen])
    shape = Shape(size, tokens, -(-max(int(counts.max()), 1) // 16) * 16)
    batches = []
    for start in range(0, max(rows) + 1, size):
        members = [item for item, row in zip(chosen, rows, strict=True) if start <= row < start + size]
        owners = [
            (index, origin[place])
            for piece, index, origin in members
            for place, segment in enumerate(piece)
            if segment.scored
        ]
        batches.append((pack([piece for piece, _, _ in members], shape), owners))
    return batches
