"""Scoring: the log-probability of every branch of many token trees.

A adapters, B rows of a batch, P predictions of a row, S segments of a tree.
"""

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Float, Float64

from jaxalign.data.packing import PackedBatch, Shape, stack_batches
from jaxalign.data.trees import Tree, radix
from jaxalign.inference.not_finite import not_finite
from jaxalign.inference.passes import pack_for_reading
from jaxalign.models.layout import BaseWeights
from jaxalign.models.lora import LoraParams
from jaxalign.models.transformer import Transformer
from jaxalign.objectives.forward import reader
from jaxalign.parallel.compilation import Programs


@dataclasses.dataclass(frozen=True)
class Scorer:
    """A base model with an adapter, or with a stack of adapters, that scores token trees."""

    network: Transformer
    weights: BaseWeights
    adapter: LoraParams
    """One adapter without its scale, or a stack of them [A, ...], which all score in one program."""
    scale: float | Float[np.ndarray, " A"]
    """The adapter's scale (alpha / rank), or the scales of a stack. 0 scores with the bare base."""
    programs: Programs
    row_length: int = 2048
    """The largest number of tokens in a packed row."""
    batch_tokens: int = 2048
    """The largest number of tokens in one pass, over all adapters."""
    share: bool = True
    """Whether tokens with which several paths begin, in one tree or in several, are computed only once."""
    shapes: list[Shape] = dataclasses.field(default_factory=list)
    """The shapes of all passes so far. A later call uses one of them if it can, which saves a compilation."""

    @property
    def stacked(self) -> int | None:
        """The number of adapters in the stack; None for a single adapter."""
        shape = np.shape(self.scale)
        return shape[0] if shape else None

    def score(
        self,
        trees: Sequence[Tree],
        progress: Callable[[int, int], None] = lambda done, total: None,
        *,
        adapters: Sequence[int] | None = None,
    ) -> list[Float64[np.ndarray, " _"]]:
        """Return the scores of each tree's segments, float64 [S].

        The score of a scored segment is the log-probability of its tokens, in nats, given all tokens before them on
        their path. Other segments have the score 0. For an answer of several nested segments, add their scores.

        Args:
            trees: the trees. A tree that is longer than a row is cut, and its trunk is repeated. A single path that is
                longer than `row_length` makes all rows longer.
            progress: is called with (passes done, all passes) after each pass.
            adapters: for each tree the index of the adapter that scores it; None takes the first adapter for all.

        Raises:
            UserError: the model's logits are not finite.
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
            log_probs = self._log_probs([batch for batch, _ in batches])
            for (batch, owners), found, mine in zip(batches, log_probs, results, strict=True):
                counted = np.asarray(batch.weight) != 0
                sums = np.bincount(np.asarray(batch.branch)[counted], found[counted], minlength=len(owners))
                if not np.isfinite(sums).all():
                    raise not_finite()
                for (tree, segment), value in zip(owners, sums, strict=True):
                    mine[tree][segment] = value
            progress(done + 1, len(passes))
        scores = [np.zeros(0)] * len(trees)
        for group, (shared, ends), mine in zip(groups, merged, results, strict=True):
            for n, places in zip(group, ends, strict=True):
                scores[n] = _hand_back(trees[n], places, shared, mine)
        return scores

    def _log_probs(self, batches: Sequence[PackedBatch]) -> Sequence[Float64[np.ndarray, "B P"]]:
        """Return the log-probabilities of the predictions of each adapter's batch, one batch for each adapter."""
        # The weights are fetched for each pass, because `progress` may have sampled after the pass before.
        params = self.weights.get(layered=False)
        read = reader(self.network, params, self.adapter, self.scale, self.programs)
        return [read(batches[0])] if self.stacked is None else list(read(stack_batches(batches)))

    def _merged(self, trees: Sequence[Tree]) -> tuple[Sequence[Tree], list[list[tuple[int, int]]]]:
        """Return the trees to compute, and for each segment of each given tree the (tree, segment) where it ends."""
        if self.share:
            return radix(trees)
        return trees, [[(number, segment) for segment in range(len(tree))] for number, tree in enumerate(trees)]


def _hand_back(
    tree: Tree,
    places: Sequence[tuple[int, int]],
    shared: Sequence[Tree],
    results: Sequence[Float64[np.ndarray, " _"]],
) -> Float64[np.ndarray, " S"]:
    """Return the scores of a tree's segments. Each is the sum over the shared segments that the segment has become."""
    scores = np.zeros(len(tree))
    for index, segment in enumerate(tree):
        if segment.scored:
            (number, place), start = places[index], places[segment.parent][1]
            while place != start:
                scores[index] += results[number][place]
                place = shared[number][place].parent
    return scores
