"""The feed of supervised examples: which examples a step takes, and their packed batch."""

import dataclasses
import itertools
import math
from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Shaped

from jaxalign.data.bucketing import plan, shape_for
from jaxalign.data.encoding import Encoded
from jaxalign.data.order import batches, epoch_order
from jaxalign.data.packing import PackedBatch, Shape, pack, split_trees
from jaxalign.data.trees import Segment, Tree, merge, tree_length
from jaxalign.errors import UserError
from jaxalign.objectives.forward import ReadLogProbs
from jaxalign.training.feed import PLANNED_STEPS, StageSettings


def supervised_steps(data: Encoded, settings: StageSettings) -> list[tuple[int, list[int]]]:
    """Return (epoch, indices of the examples) for each step of a stage: a pure function of data and settings."""
    groups = [prompt.tobytes() for prompt in data.prompts]
    together = max(settings.batch_size // 2, 1) if settings.share_prompts else 1
    steps: list[tuple[int, list[int]]] = []
    tokens, most = 0, math.inf if settings.max_steps is None else settings.max_steps
    if settings.max_tokens is None:
        most = min(most, max(round(settings.epochs * math.ceil(len(data) / settings.batch_size)), 1))
    for epoch in itertools.count():
        for batch in batches(epoch_order(groups, settings.seed, epoch, together), settings.batch_size):
            if len(steps) == most or (settings.max_tokens is not None and tokens >= settings.max_tokens):
                return steps
            steps.append((epoch, batch))
            tokens += sum(data.tokens(index) for index in batch)
    raise AssertionError("itertools.count() has no end")


@dataclasses.dataclass
class Packer:
    """Packs the examples of a step into a batch. After `plan`, the batch is a pure function of the step.

    data      the examples
    share     whether prompts that begin alike share their tokens
    alone     whether each tree has a row of its own, as without packing
    limit     largest length of a row in tokens, unless an example is longer
    max_rows  largest number of rows in a micro-batch; None for any
    together  number of devices that share the rows
    shapes    the planned shapes
    """

    data: Encoded
    share: bool
    alone: bool
    limit: int
    max_rows: int | None
    together: int = 1
    shapes: list[Shape] = dataclasses.field(default_factory=list)

    def plan(self, steps: Sequence[list[int]], programs: int = 2) -> None:
        """Choose the shapes of batches for these steps, from a sample of them: about as many as `programs`."""
        stride = max(len(steps) // PLANNED_STEPS, 1)
        longest = max(self.data.tokens(index) for index in range(len(self.data)))
        sample = [self.trees(step) for step in steps[::stride]]
        limit = max(self.limit, longest)
        planned = plan(sample, limit, programs, longest=longest, alone=self.alone, together=self.together)
        self.shapes = sorted(set(planned))

    def trees(self, step: Sequence[int]) -> list[Tree]:
        """Return the trees of a step's examples, given by their indices."""
        take = [(self.data.prompts[i], self.data.responses[i], self.data.weights[i]) for i in step]
        if self.share:
            prompts, responses, weights = zip(*take, strict=True)
            return merge(prompts, responses, weights)
        return [(Segment(prompt, -1), Segment(response, 0, True, weight)) for prompt, response, weight in take]

    def batch(self, step: Sequence[int]) -> tuple[PackedBatch, int]:
        """Return a step's micro-batches stacked to [M, B, ...], and their number of tokens, without padding."""
        whole = self.trees(step)
        shape = shape_for(whole, self.shapes, self.alone)
        trees = split_trees(whole, shape.tokens)
        rows = shape.rows if self.max_rows is None else min(shape.rows, self.max_rows)
        count = -(-shape.rows // rows)
        packed = pack(trees, dataclasses.replace(shape, rows=count * rows), alone=self.alone)
        stacked = jax.tree.map(partial(_micro_batches, rows), packed)
        return stacked, sum(map(tree_length, trees))


def _micro_batches(rows: int, x: Shaped[Array | np.ndarray, "N ..."]) -> Shaped[np.ndarray, "M B ..."]:
    """Return a field of a batch cut into micro-batches of B = `rows` rows."""
    return np.asarray(x).reshape(-1, rows, *x.shape[1:])


class SupervisedFeed:
    """A `Feed` of supervised examples, whose loss is that of their responses."""

    def __init__(self, data: "SupervisedStage", settings: StageSettings):
        self.data, self.objective = data, data.objective
        self.steps = supervised_steps(data.train, settings)
        share, alone = settings.share_prompts and settings.packing, not settings.packing
        self._packer, self._validation = (
            Packer(part, share, alone, settings.row_length, settings.most_rows, settings.together)
            for part in (data.train, data.validation)
        )
        self._packer.plan([step for _, step in self.steps], programs=2)
        self._held_out = batches(range(len(data.validation)), 2 * settings.batch_size) if settings.validate else []
        if self._held_out:
            self._validation.plan(self._held_out, programs=1)

    def batch(self, members: Sequence[int]) -> tuple[PackedBatch, int]:
        """Return a step's micro-batches stacked to [M, B, ...], and their number of tokens, without padding."""
        return self._packer.batch(members)

    def tokens(self, members: Sequence[int]) -> int:
        """Return the number of tokens of a step's examples, where each counts its prompt, shared or not."""
        return sum(self.data.train.tokens(index) for index in members)

    def validation_loss(self, read: ReadLogProbs) -> float | None:
        """Return the weighted mean loss of the validation examples; None if there are none."""
        return validation_loss(self._validation, self._held_out, read) if self._held_out else None

    def summary(self) -> dict[str, Any]:
        """Return what summary.json says about the data."""
        data = self.data
        return {
            "examples": len(data.train),
            "validation_examples": len(data.validation),
            "positives": data.positives,
            "cut": sum(data.train.cut),
        }


@dataclasses.dataclass(frozen=True)
class SupervisedStage:
    """The encoded examples of one stage: those to train on, and those to validate on.

    `positives` is the number of positive examples to train on; None for a stage that does not tell them apart.
    `objective` is one of `step.OBJECTIVES`; validation measures the negative log-likelihood, whatever is trained.
    """

    name: str
    train: Encoded
    validation: Encoded
    positives: int | None = None
    objective: str = "sft"

    def feed(self, settings: StageSettings) -> SupervisedFeed:
        """Return the feed of the stage.

        Raises:
            UserError: there is nothing to train on.
        """
        if not len(self.train):
            raise UserError(f"stage {self.name} has no examples to train on: give more data, or raise dataset.limit")
        return SupervisedFeed(self, settings)


def validation_loss(packer: Packer, steps: Sequence[Sequence[int]], read: ReadLogProbs) -> float:
    """Return the weighted mean loss of the packer's examples, which are read in `steps`."""
    total = count = 0.0
    for step in steps:
        stacked, _ = packer.batch(step)
        for micro in range(stacked.tokens.shape[0]):
            batch = jax.tree.map(lambda x, micro=micro: x[micro], stacked)
            weight = np.asarray(batch.weight, np.float64)
            total, count = total - (read(batch) * weight).sum(), count + weight.sum()
    return float(total / count)
