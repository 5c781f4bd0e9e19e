"""Bucketing: sizes are rounded up to a few shapes, so that few programs are compiled."""

import dataclasses
from collections.abc import Sequence

from jaxalign.data.packing import Shape, measure, pack, rounded_up, split_trees
from jaxalign.data.trees import Tree, path_lengths, tree_length
from jaxalign.errors import UserError
from jaxalign.parallel.processor import on_cpu


def plan(
    steps: Sequence[Sequence[Tree]],
    limit: int,
    programs: int = 3,
    *,
    longest: int = 1,
    alone: bool = False,
    together: int = 1,
) -> list[Shape]:
    """Return a shape for each step, such that computing and compiling together take least.

    There are two ways, and the cheaper one is taken. Either all steps have rows of one length, and their numbers of
    rows are rounded up to few levels: long rows repeat fewer trunks, short rows have less padding. Or each step is a
    single row, and the lengths are rounded up to few levels.

    Args:
        steps: the trees of each step, before they are cut.
        limit: the largest length of a row, in tokens.
        programs: the largest number of levels.
        longest: rows must have room for a path of so many tokens, even if no tree of `steps` has one.
        alone: whether each tree gets a row of its own.
        together: the number of devices that share the rows; the number of rows is a multiple of it.

    Raises:
        UserError: a single path from root to leaf is longer than the limit.
    """
    longest = max(longest, max(max(path_lengths(tree)) for trees in steps for tree in trees))
    if longest > limit:
        raise UserError(f"a text of {longest} tokens does not fit into rows of {limit}: raise training.row_length")
    whole = [sum(tree_length(tree) for tree in trees) for trees in steps]
    quantum, found = row_quantum(), []
    first = min(rounded_up(longest, quantum), limit)
    for tokens in range(first, max(min(limit, max(whole) + quantum), first) + 1, quantum):
        tight = [measure(split_trees(trees, tokens), tokens, alone) for trees in steps]
        raised = _raised([rounded_up(shape.rows, together) for shape in tight], programs, tokens)
        found.append([dataclasses.replace(s, rows=r) for s, r in zip(tight, raised, strict=True)])
    single = [max(rounded_up(count, quantum), first) for count in whole]
    if not alone and max(single) <= limit:
        lengths = _raised(single, programs, 1)
        tight = [measure(trees, tokens) for trees, tokens in zip(steps, lengths, strict=True)]
        found.append([dataclasses.replace(shape, rows=together) for shape in tight])

    def whole_cost(shapes: Sequence[Shape]) -> float:
        return sum(map(cost, shapes)) + _program_cost() * len({(shape.rows, shape.tokens) for shape in shapes})

    shapes = min(found, key=whole_cost)
    most: dict[tuple[int, int], tuple[int, int]] = {}
    for trees, s in zip(steps, shapes, strict=True):
        predicted, blocks = most.get((s.rows, s.tokens), (0, 0))
        batch = pack(split_trees(trees, s.tokens), s, alone)
        most[s.rows, s.tokens] = max(predicted, s.predictions), max(blocks, batch.blocks.shape[2])

    def shared(rows: int, tokens: int) -> Shape:
        predicted, blocks = most[rows, tokens]
        return Shape(rows, tokens, rounded_up(predicted, _prediction_quantum()), blocks)

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
    """Return an estimate of the cost of a step of this shape, in tokens of short rows."""
    return shape.rows * shape.tokens * (1 + shape.tokens * ATTENTION_COST)


def _raised(counts: Sequence[int], programs: int, tokens: int) -> list[int]:
    """Return the counts, each of so many tokens, raised to those few levels that cost least."""
    levels = min(
        (_levels(counts, most) for most in range(1, programs + 1)),
        key=lambda levels: _program_cost() * len(levels) + tokens * sum(_raise(levels, count) for count in counts),
    )
    return [_raise(levels, count) for count in counts]


def _raise(levels: Sequence[int], count: int) -> int:
    return next(level for level in levels if level >= count)


ROW_QUANTUM, KERNEL_QUANTUM = 32, 128
"""The lengths of rows are multiples of this number of tokens, on a CPU and elsewhere: GPUs and TPUs have kernels for
attention that take blocks of 128."""


PREDICTION_QUANTUM, LARGE_PREDICTION_QUANTUM = 16, 128
"""The numbers of predictions are multiples of this one, on a CPU and elsewhere."""


PROGRAM_COST, SLOW_PROGRAM_COST = 5000, 5_000_000
"""What the compilation of one more program costs, in tokens: a small model trains on so many in that time on a CPU, and
elsewhere, where a compilation takes a minute of the host in which the device would train on millions."""


def row_quantum() -> int:
    """Return the number of tokens that the lengths of rows are multiples of."""
    return ROW_QUANTUM if on_cpu() else KERNEL_QUANTUM


def _prediction_quantum() -> int:
    return PREDICTION_QUANTUM if on_cpu() else LARGE_PREDICTION_QUANTUM


def _program_cost() -> int:
    return PROGRAM_COST if on_cpu() else SLOW_PROGRAM_COST


ATTENTION_COST = 1 / 20000
"""By how much the cost of a token rises with each further token in its row, as a share of the cost of its matrix
products in a small model. It is small, because attention reads only those blocks of keys that are visible."""


def _levels(counts: Sequence[int], programs: int) -> list[int]:
    """Return at most `programs` levels that waste least if all counts are rounded up to them (dynamic programming)."""
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
    """Return the length of a prompt rounded up to one of those that programs are compiled for.

    On a CPU they are 16, 24, 32, 48, 64, 96, ..., and elsewhere 64, 128, 256, ..., because there a short prompt takes
    as long as one of 64 tokens, and each program takes seconds to compile.
    """
    if not on_cpu():
        return max(1 << (length - 1).bit_length(), 64)
    size = 16
    while size < length:
        size = size * 4 // 3 if size & (size - 1) else size * 3 // 2
    return size
