"""Reading a model: the log-probability of every branch of many token trees."""

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np

from jaxalign.data.bucketing import ATTENTION_COST, ROW_QUANTUM
from jaxalign.data.packing import PackedBatch, Shape, assign_rows, fill_rows, pack, split_tree, stack_batches
from jaxalign.data.trees import Tree, path_lengths, predictions, radix, tree_length
from jaxalign.models.layout import BaseWeights
from jaxalign.models.lora import LoraParams
from jaxalign.models.transformer import Transformer
from jaxalign.objectives.forward import reader
from jaxalign.parallel.compilation import Programs


@dataclasses.dataclass(frozen=True)
class Scorer:
    """A model that reads trees: base parameters, an adapter and its scale (0 reads the bare base).

    The adapter may be a stack [A, ...], with a scale for each: then each tree is read with the one named for it, all
    in one program. `row_length` bounds a row, `batch_tokens` the tokens of one pass. `share` computes once what paths
    begin with alike, within a tree and between trees; without it each tree is computed as it is given.
    """

    network: Transformer
    weights: BaseWeights
    adapter: LoraParams
    scale: float | np.ndarray
    programs: Programs
    row_length: int = 2048
    batch_tokens: int = 2048
    share: bool = True
    shapes: list[Shape] = dataclasses.field(default_factory=list)
    """Of the passes so far: one that does for another call as well saves it a compilation."""

    @property
    def stacked(self) -> int | None:
        """The number of adapters of a stack; None for a single one."""
        shape = np.shape(self.scale)
        return shape[0] if shape else None

    def score(
        self,
        trees: Sequence[Tree],
        progress: Callable[[int, int], None] = lambda done, total: None,
        *,
        adapters: Sequence[int] | None = None,
    ) -> list[np.ndarray]:
        """Return for each tree float64 [S]: the summed log-probability of each scored segment given what stands
        before it on its path, 0 for the others. An answer of nested segments is the sum along its path.

        `progress(done, total)` is told the number of passes; `adapters` says of each tree which of the stack reads it.
        A tree longer than a row is cut, its trunk repeated; a path longer than `row_length` makes the rows longer.
        """
        if not trees:
            return []
        members = [0] * len(trees) if adapters is None else adapters
        groups = [[n for n, one in enumerate(members) if one == m] for m in range(self.stacked or 1)]
        merged = [self._merged([trees[n] for n in group]) for group in groups]
        results = [[np.zeros(len(tree)) for tree in shared] for shared, _ in merged]
        passes = pack_for_reading(
            [shared for shared, _ in merged], self.row_length, self.batch_tokens // len(groups), self.shapes
        )
        for done, batches in enumerate(passes):
            # Asked for in each pass: `progress` may have made somebody sample.
            params = self.weights.get(layered=False)
            read = reader(self.network, params, self.adapter, self.scale, self.programs)
            if self.stacked is None:
                log_probs = [read(batches[0][0])]
            else:
                log_probs = read(stack_batches([batch for batch, _ in batches]))
            for (batch, owners), found, mine in zip(batches, log_probs, results, strict=True):
                counted = np.asarray(batch.weight) != 0
                sums = np.bincount(np.asarray(batch.branch)[counted], found[counted], minlength=len(owners))
                for (tree, segment), value in zip(owners, sums, strict=True):
                    mine[tree][segment] = value
            progress(done + 1, len(passes))
        scores = [np.zeros(0)] * len(trees)
        for group, (shared, ends), mine in zip(groups, merged, results, strict=True):
            for n, places in zip(group, ends, strict=True):
                scores[n] = _hand_back(trees[n], places, shared, mine)
        return scores

    def _merged(self, trees: Sequence[Tree]) -> tuple[Sequence[Tree], list[list[tuple[int, int]]]]:
        """Return what is computed, and where each segment of the trees ends in it (see `radix`)."""
        if self.share:
            return radix(trees)
        return trees, [[(number, segment) for segment in range(len(tree))] for number, tree in enumerate(trees)]


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
"""How much dearer than the best shape an old one may be, which is compiled already for most lists of blocks of keys."""


def pack_for_reading(
    groups: Sequence[Sequence[Tree]], row_length: int, batch_tokens: int, shapes: list[Shape] | None = None
) -> list[list[tuple[PackedBatch, list[tuple[int, int]]]]]:
    """Return passes, each of a batch for every group of trees, all of one shape but for the lists of blocks of keys,
    whose few widths are a program each; and for each of a batch's branches the (tree, segment) that it is. A group that
    is done before the others gets empty batches.

    The shape is one of `shapes` where that does, or else the best for these trees, which joins them.
    """
    longest = max(max(path_lengths(tree)) for trees in groups for tree in trees)
    first = -(-longest // ROW_QUANTUM) * ROW_QUANTUM
    known = [] if shapes is None else shapes
    last = max(min(row_length, batch_tokens), first)
    step = max(4, (last - first) // (8 * ROW_QUANTUM)) * ROW_QUANTUM  # some eight: laying out takes time
    lengths = {*range(first, last + 1, step)}
    lengths |= {shape.tokens for shape in known if first <= shape.tokens <= last}
    layouts = {tokens: [_lay_out(trees, tokens) for trees in groups] for tokens in sorted(lengths)}

    def rows(tokens: int) -> int:
        return max(max(rows, default=-1) + 1 for _, rows in layouts[tokens])

    def most(tokens: int) -> int:
        counts = (np.bincount(rows, [predictions(p) for p, _, _ in pieces]) for pieces, rows in layouts[tokens] if rows)
        return int(max(count.max() for count in counts))

    def cost(tokens: int, together: int) -> float:
        return -(-rows(tokens) // together) * together * tokens * (1 + tokens * ATTENTION_COST)

    best = min(layouts, key=lambda tokens: cost(tokens, 1))
    size = max(min(batch_tokens // best, rows(best)), 1)
    shape = Shape(size, best, -(-max(most(best), 1) // 16) * 16)
    old = [one for one in known if one.tokens in layouts and one.predictions >= most(one.tokens)]
    old = [one for one in old if cost(one.tokens, one.rows) <= SPARE * cost(best, size)]
    if old:
        shape = min(old, key=lambda one: cost(one.tokens, one.rows))
    else:
        known.append(shape)
    return [
        [_packed(*layout, shape, start) for layout in layouts[shape.tokens]]
        for start in range(0, rows(shape.tokens), shape.rows)
    ]


def _packed(
    pieces: Sequence[tuple[Tree, int, list[int]]], rows: Sequence[int], shape: Shape, start: int
) -> tuple[PackedBatch, list[tuple[int, int]]]:
    """Return a layout's rows from `start` on as a batch, and the (tree, segment) of each branch."""
    places = [n for n, row in enumerate(rows) if start <= row < start + shape.rows]
    members = [pieces[n] for n in places]
    owners = [
        (index, origin[place])
        for piece, index, origin in members
        for place, segment in enumerate(piece)
        if segment.scored
    ]
    return pack([piece for piece, _, _ in members], shape, rows=[rows[n] - start for n in places]), owners


def _lay_out(trees: Sequence[Tree], tokens: int) -> tuple[list[tuple[Tree, int, list[int]]], list[int]]:
    """Return (piece, tree, its segments there) of all trees in rows of `tokens`, and the row of each: whole trees,
    longest first, or leaf by leaf, whichever takes fewer rows."""
    pieces = [(piece, index, origin) for index, tree in enumerate(trees) for piece, origin in split_tree(tree, tokens)]
    rows = assign_rows([tree_length(piece) for piece, _, _ in pieces], tokens)
    filled = fill_rows(trees, tokens)
    if len(filled) <= max(rows, default=0):
        return [piece for row in filled for piece in row], [n for n, row in enumerate(filled) for _ in row]
    return pieces, rows
