"""Supervised examples as a feed of the training loop: which examples each step takes, and their packed batch."""

import dataclasses
import itertools
import math
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from jaxalign.data.bucketing import cost, plan
from jaxalign.data.encoding import Encoded
from jaxalign.data.order import batches, epoch_order
from jaxalign.data.packing import PackedBatch, Shape, measure, pack, rounded_up, split_trees
from jaxalign.data.trees import Segment, Tree, merge, tree_length
from jaxalign.errors import UserError
from jaxalign.objectives.forward import ReadLogProbs
from jaxalign.training.feed import PLANNED_STEPS, StageSettings


def supervised_steps(data: Encoded, settings: StageSettings) -> list[tuple[int, list[int]]]:
    """Return (epoch, indices of the examples) of every step of a stage."""
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
    """Turns the examples of a step into one packed batch; a pure function of the step, once planned."""

    data: Encoded
    share: bool
    alone: bool
    limit: int
    max_rows: int | None
    shapes: list[Shape] = dataclasses.field(default_factory=list)

    def plan(self, steps: Sequence[list[int]], programs: int = 2) -> None:
        """Choose the shapes from a sample of the steps."""
        stride = max(len(steps) // PLANNED_STEPS, 1)
        longest = max(self.data.tokens(index) for index in range(len(self.data)))
        sample = [self.trees(step) for step in steps[::stride]]
        self.shapes = sorted(set(plan(sample, max(self.limit, longest), programs, longest=longest, alone=self.alone)))

    def trees(self, step: Sequence[int]) -> list[Tree]:
        """Return the trees of a step's examples."""
        take = [(self.data.prompts[i], self.data.responses[i], self.data.weights[i]) for i in step]
        if self.share:
            prompts, responses, weights = zip(*take, strict=True)
            return merge(prompts, responses, weights)
        return [(Segment(prompt, -1), Segment(response, 0, True, weight)) for prompt, response, weight in take]

    def batch(self, step: Sequence[int]) -> tuple[PackedBatch, int]:
        """Return a step's micro-batches stacked to [M, B, ...], and how many tokens they hold, padding apart."""
        whole = self.trees(step)
        for shape in sorted(self.shapes, key=cost):
            trees = split_trees(whole, shape.tokens)
            tight = measure(trees, shape.tokens, alone=self.alone)
            if shape.rows >= tight.rows and shape.predictions >= tight.predictions:
                break
        else:  # unlike any step that was planned: a shape of its own
            trees = split_trees(whole, self.shapes[-1].tokens)
            tight = measure(trees, self.shapes[-1].tokens, alone=self.alone)
            shape = dataclasses.replace(tight, predictions=rounded_up(tight.predictions, 64))
        rows = shape.rows if self.max_rows is None else min(shape.rows, self.max_rows)
        count = -(-shape.rows // rows)
        packed = pack(trees, dataclasses.replace(shape, rows=count * rows), alone=self.alone)
        stacked = jax.tree.map(lambda x: np.asarray(x).reshape(count, rows, *x.shape[1:]), packed)
        return stacked, sum(map(tree_length, trees))


class SupervisedFeed:
    """A feed of supervised examples (see feed.py): the loss is on their responses."""

    objective = "sft"

    def __init__(self, data: "SupervisedStage", settings: StageSettings):
        self.data, self._settings = data, settings
        self.steps = supervised_steps(data.train, settings)
        share, alone = settings.share_prompts and settings.packing, not settings.packing
        self._packer, self._validation = (
            Packer(part, share, alone, settings.row_length, settings.max_rows) for part in (data.train, data.validation)
        )
        self._packer.plan([step for _, step in self.steps], programs=2)
        self._held_out = batches(range(len(data.validation)), 2 * settings.batch_size) if settings.validate else []
        if self._held_out:
            self._validation.plan(self._held_out, programs=1)

    def batch(self, members: Sequence[int]) -> tuple[PackedBatch, int]:
        """See feed.py."""
        return self._packer.batch(members)

    def tokens(self, members: Sequence[int]) -> int:
        """See feed.py."""
        return sum(self.data.train.tokens(index) for index in members)

    def validation_loss(self, read: ReadLogProbs) -> float | None:
        """Return the weighted mean loss over the validation examples; None where there are none."""
        return validation_loss(self._validation, self._held_out, read) if self._held_out else None

    def summary(self) -> dict[str, Any]:
        """See feed.py."""
        data = self.data
        return {
            "examples": len(data.train),
            "validation_examples": len(data.validation),
            "positives": data.positives,
            "cut": sum(data.train.cut),
        }


@dataclasses.dataclass(frozen=True)
class SupervisedStage:
    """One stage's examples: encoded, for training and for validation, and how many are positive (None: no sides)."""

    name: str
    train: Encoded
    validation: Encoded
    positives: int | None = None

    def feed(self, settings: StageSettings) -> SupervisedFeed:
        """Return the stage as the training loop takes it.

        Raises:
            UserError: there is nothing to train on.
        """
        if not len(self.train):
            raise UserError(f"stage {self.name} has no examples to train on: give more data, or raise dataset.limit")
        return SupervisedFeed(self, settings)


def validation_loss(packer: Packer, steps: Sequence[Sequence[int]], read: ReadLogProbs) -> float:
    """Return the weighted mean loss over the packer's examples, taken in `steps`."""
    total = count = 0.0
    for step in steps:
        stacked, _ = packer.batch(step)
        for micro in range(stacked.tokens.shape[0]):
            batch = jax.tree.map(lambda x, micro=micro: x[micro], stacked)
            weight = np.asarray(batch.weight, np.float64)
            total, count = total - (read(batch) * weight).sum(), count + weight.sum()
    return float(total / count)
