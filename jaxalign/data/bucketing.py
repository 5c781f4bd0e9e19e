"""Few shapes for many batches: sizes are rounded up, so that few programs are compiled."""

import dataclasses
from collections.abc import Sequence

from jaxalign.data.packing import Shape, measure, pack, rounded_up, split_trees
from jaxalign.data.trees import Tree, path_lengths, tree_length
from jaxalign.errors import UserError


def plan(
    steps: Sequence[Sequence[Tree]],
    limit: int,
    programs: int = 3,
    *,
    longest: int = 1,
    alone: bool = False,
) -> list[Shape]:
    """Choose the shape of every step so that little is computed and few programs are compiled.

    `steps` are the trees of each step; they are packed after `split_trees` to a row length of at most `limit`: long
    rows repeat few trunks, short rows hold less padding. Either all steps get one row length, with their numbers of
    rows rounded up to at most `programs` levels; or each step is a single row, with the lengths rounded up to so many
    levels; whichever costs less. Rows have room for a path of `longest` tokens even if these steps hold none; `alone`
    as in `assign_rows`.

    Raises:
        UserError: one root-to-leaf path is longer than the limit.
    """
    longest = max(longest, max(max(path_lengths(tree)) for trees in steps for tree in trees))
    if longest > limit:
        raise UserError(f"a text of {longest} tokens does not fit into rows of {limit}: raise training.row_length")
    whole = [sum(tree_length(tree) for tree in trees) for trees in steps]
    first = min(rounded_up(longest, ROW_QUANTUM), limit)
    found = []
    for tokens in range(first, max(min(limit, max(whole) + ROW_QUANTUM), first) + 1, ROW_QUANTUM):
        tight = [measure(split_trees(trees, tokens), tokens, alone) for trees in steps]
        raised = _raised([shape.rows for shape in tight], programs)
        found.append([dataclasses.replace(s, rows=r) for s, r in zip(tight, raised, strict=True)])
    single = [max(rounded_up(count, ROW_QUANTUM), first) for count in whole]
    if not alone and max(single) <= limit:
        lengths = _raised(single, programs)
        found.append([measure(trees, tokens) for trees, tokens in zip(steps, lengths, strict=True)])
    shapes = min(found, key=lambda shapes: sum(map(cost, shapes)))
    most: dict[tuple[int, int], tuple[int, int]] = {}
    for trees, s in zip(steps, shapes, strict=True):
        predicted, blocks = most.get((s.rows, s.tokens), (0, 0))
        batch = pack(split_trees(trees, s.tokens), s, alone)
        most[s.rows, s.tokens] = max(predicted, s.predictions), max(blocks, batch.blocks.shape[2])

    def shared(rows: int, tokens: int) -> Shape:
        predicted, blocks = most[rows, tokens]
        return Shape(rows, tokens, rounded_up(predicted, 16), blocks)

    return [shared(s.rows, s.tokens) for s in shapes]


def fits(trees: Sequence[Tree], shape: Shape, alone: bool = False) -> bool:
    """Return whether the trees have room in a shape, where they are cut to the length of its rows."""
    tight = measure(split_trees(trees, shape.tokens), shape.tokens, alone)
    return shape.rows >= tight.rows and shape.predictions >= tight.predictions


def shape_for(trees: Sequence[Tree], shapes: Sequence[Shape], alone: bool = False) -> Shape:
    """Return the cheapest of the planned shapes that has room for the trees; if none has, a shape of their own."""
    for shape in sorted(shapes, key=cost):
        if fits(trees, shape, alone):
            return shape
    tokens = max(shape.tokens for shape in shapes)
    tight = measure(split_trees(trees, tokens), tokens, alone)
    return dataclasses.replace(tight, predictions=rounded_up(tight.predictions, 64))


def cost(shape: Shape) -> float:
    """Return about what a step of this shape costs, in tokens of short rows."""
    return shape.rows * shape.tokens * (1 + shape.tokens * ATTENTION_COST)


def _raised(counts: Sequence[int], programs: int) -> list[int]:
    levels = _levels(counts, programs)
    return [next(level for level in levels if level >= count) for count in counts]


ROW_QUANTUM = 32
"""Row lengths are multiples of this."""


ATTENTION_COST = 1 / 20000
"""What a token costs more in a row of one token more, as a share of its matrix products (a small model's): little, as
attention reads only the blocks of keys that hold something visible."""


def _levels(counts: Sequence[int], programs: int) -> list[int]:
    """Return at most `programs` levels that cover all counts with the least rounding up (dynamic programming)."""
    values = sorted(set(counts))
    frequency = [counts.count(value) for value in values]

    def waste(first: int, last: int) -> int:
        return sum((values[last] - values[i]) * frequency[i] for i in range(first, last + 1))

    # best[i]: the least waste for the first i values, with the levels that give it.
    best: list[tuple[int, list[int]]] = [(0, [])]
    best += [(waste(0, i), [values[i]]) for i in range(len(values))]
    for _ in range(programs - 1):
        best = [best[0]] + [
            min(
                [best[i + 1]] + [(best[j][0] + waste(j, i), best[j][1] + [values[i]]) for j in range(1, i + 1)],
                key=lambda pair: pair[0],
            )
            for i in range(len(values))
        ]
    return best[-1][1]


def bucket(length: int) -> int:
    """Return the next of few lengths, which programs are compiled for: 16, 24, 32, 48, 64, 96, ..."""
    size = 16
    while size < length:
        size = size * 4 // 3 if size & (size - 1) else size * 3 // 2
    return size
