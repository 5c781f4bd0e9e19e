"""Reading a model: the log-probability of every branch of many token trees."""

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np

from jaxalign.data.packing import Shape, stack_batches
from jaxalign.data.trees import Tree, radix
from jaxalign.inference.passes import pack_for_reading
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
