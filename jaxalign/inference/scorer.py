"""Scoring: the log-probability of every branch of many token trees.

A adapters, B rows of a batch, P predictions of a row, S segments of a tree.
"""

import dataclasses
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Float64

from jaxalign.data.packing import PackedBatch, Shape, stack_batches
from jaxalign.data.placed_batch import on_mesh
from jaxalign.data.trees import Tree, radix
from jaxalign.inference.not_finite import not_finite
from jaxalign.inference.passes import pack_for_reading
from jaxalign.models.layout import BaseWeights
from jaxalign.models.lora import LoraParams
from jaxalign.models.transformer import Transformer
from jaxalign.objectives.forward import choices_program, reader, states_program
from jaxalign.parallel.compilation import Programs

PASS_TOKENS, LARGE_PASS_TOKENS = 2048, 16384
"""The largest number of tokens in one pass on one device: a CPU, or a GPU or TPU, which few tokens do not keep busy. A
single row may be longer (see `pack_for_reading`)."""

_Values = tuple[Float64[np.ndarray, "B P"], ...]
"""One or more values of each prediction of a batch."""


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
    row_length: int
    """The largest number of tokens in a packed row."""
    batch_tokens: int = PASS_TOKENS
    """The largest number of tokens in one pass of several rows, over all adapters."""
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
        return [sums[:, 0] for sums in self._sums(trees, 1, self._log_probs, progress, adapters)]

    def score_greedy(self, trees: Sequence[Tree]) -> list[tuple[Float64[np.ndarray, " _"], Bool[np.ndarray, " _"]]]:
        """Return the scores [S] of each tree's segments, and whether each token of a segment is the most probable one.

        Both come from the same passes. The scorer must have a single adapter; for the rest see `score`.
        """
        return [(sums[:, 0], sums[:, 1] == 0) for sums in self._sums(trees, 2, self._choices)]

    def mean_states(self, trees: Sequence[Tree], layers: int | None = None) -> list[Float64[np.ndarray, "_ D"]]:
        """Return for each tree [S, D] the mean hidden state that would predict a segment's tokens.

        These are the states of all tokens of the segment but the last, and of the token before the segment. Segments
        that are not scored have zeros. The scorer must have a single adapter; for errors see `score`.

        Args:
            trees: the trees, as for `score`.
            layers: the states are those after so many layers, and after the model's last norm; None means all layers.
        """
        arch = self.network.architecture
        count = arch.layers if layers is None else layers
        network = self.network.clone(architecture=dataclasses.replace(arch, layers=count, windows=arch.windows[:count]))
        # A last kind counts the predictions, because a segment may be several segments of the shared trees.
        sums = self._sums(trees, arch.width + 1, partial(self._states, network))
        return [one[:, :-1] / np.maximum(one[:, -1:], 1) for one in sums]

    def _sums(
        self,
        trees: Sequence[Tree],
        kinds: int,
        read: Callable[[Sequence[PackedBatch]], Sequence[_Values]],
        progress: Callable[[int, int], None] = lambda done, total: None,
        adapters: Sequence[int] | None = None,
    ) -> list[Float64[np.ndarray, "_ K"]]:
        """Return for each tree the sums [S, K] over its segments of the K values that `read` gives a prediction."""
        if not trees:
            return []
        members = [0] * len(trees) if adapters is None else adapters
        groups = [[n for n, one in enumerate(members) if one == m] for m in range(self.stacked or 1)]
        merged = [self._merged([trees[n] for n in group]) for group in groups]
        results = [[np.zeros((len(tree), kinds)) for tree in shared] for shared, _ in merged]
        passes = pack_for_reading(
            [shared for shared, _ in merged], self.row_length, self.batch_tokens // len(groups), self.shapes
        )
        for done, batches in enumerate(passes):
            values = read([batch for batch, _ in batches])
            for (batch, owners), found, mine in zip(batches, values, results, strict=True):
                counted = np.asarray(batch.weight) != 0
                branch = np.asarray(batch.branch)[counted]
                sums = np.stack([np.bincount(branch, kind[counted], minlength=len(owners)) for kind in found], axis=1)
                if not np.isfinite(sums).all():
                    raise not_finite()
                for (tree, segment), value in zip(owners, sums, strict=True):
                    mine[tree][segment] = value
            progress(done + 1, len(passes))
        scores = [np.zeros((0, kinds))] * len(trees)
        for group, (shared, ends), mine in zip(groups, merged, results, strict=True):
            for n, places in zip(group, ends, strict=True):
                scores[n] = _hand_back(trees[n], places, shared, mine)
        return scores

    def _log_probs(self, batches: Sequence[PackedBatch]) -> list[_Values]:
        """Return the log-probabilities of the predictions of each adapter's batch, one batch for each adapter."""
        # The weights are fetched for each pass, because `progress` may have sampled after the pass before.
        params = self.weights.get(layered=False)
        read = reader(self.network, params, self.adapter, self.scale, self.programs)
        return [(found,) for found in ([read(batches[0])] if self.stacked is None else read(stack_batches(batches)))]

    def _arguments(self, batch: PackedBatch) -> tuple[Any, ...]:
        """Return what a program that reads a batch takes. On several devices the batch may get more rows."""
        weights = self.weights.get(layered=False)
        return weights, self.adapter, np.float32(self.scale), on_mesh(self.network.placement, batch)

    def _choices(self, batches: Sequence[PackedBatch]) -> list[_Values]:
        """Return the log-probabilities of the predictions of a batch, and 1 for each that another token surpasses."""
        arguments = self._arguments(batches[0])
        choices = self.programs.get("read choices", choices_program, (self.network,), arguments)(*arguments)
        return [tuple(np.asarray(found, np.float64)[: len(batches[0].tokens)] for found in choices)]

    def _states(self, network: Transformer, batches: Sequence[PackedBatch]) -> list[_Values]:
        """Return each component of the hidden states that predict, and ones, for the predictions of a batch."""
        arguments = self._arguments(batches[0])
        program = self.programs.get("read states", states_program, (network,), arguments)
        states_BPD = np.asarray(program(*arguments), np.float64)[: len(batches[0].tokens)]
        states_DBP = np.moveaxis(states_BPD, -1, 0)
        return [(*states_DBP, np.ones_like(states_DBP[0]))]

    def _merged(self, trees: Sequence[Tree]) -> tuple[Sequence[Tree], list[list[tuple[int, int]]]]:
        """Return the trees to compute, and for each segment of each given tree the (tree, segment) where it ends."""
        if self.share:
            return radix(trees)
        return trees, [[(number, segment) for segment in range(len(tree))] for number, tree in enumerate(trees)]


def _hand_back(
    tree: Tree,
    places: Sequence[tuple[int, int]],
    shared: Sequence[Tree],
    results: Sequence[Float64[np.ndarray, "_ K"]],
) -> Float64[np.ndarray, "S K"]:
    """Return the sums of a tree's segments. Each is the sum over the shared segments that the segment has become."""
    scores = np.zeros((len(tree), results[0].shape[1]))
    for index, segment in enumerate(tree):
        if segment.scored:
            (number, place), start = places[index], places[segment.parent][1]
            while place != start:
                scores[index] += results[number][place]
                place = shared[number][place].parent
    return scores
