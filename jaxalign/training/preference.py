"""The feed of preference pairs: which pairs a step takes, and their packed batch.

A batch contains each prompt once, and each response to it once, however many of the step's pairs it is in.
"""

import dataclasses
import itertools
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jaxtyping import Float, Int32

from jaxalign.data.bucketing import fits, plan, shape_for
from jaxalign.data.order import Stream, batches
from jaxalign.data.packing import PackedBatch, Shape, measure, pack, rounded_up, split_tree, split_trees, stack_batches
from jaxalign.data.preferences import PreferencePair, Responses
from jaxalign.data.trees import Tree, tree_length
from jaxalign.errors import UserError
from jaxalign.objectives.dpo import Preferences
from jaxalign.objectives.forward import ReadLogProbs
from jaxalign.training.feed import PLANNED_STEPS, StageSettings
from jaxalign.training.optimizer import Hyperparameters
from jaxalign.training.step import objective_program


@dataclasses.dataclass(frozen=True)
class PreferenceStage:
    """One stage of DPO: the responses, and the pairs of them to train on and to validate on.

    `objective` is one of `dpo.LOSSES`. If `grouped`, a step takes all pairs of a prompt, then those of another
    prompt, until it has at least a batch; otherwise pairs are drawn one by one.
    """

    name: str
    data: Responses
    train: list[PreferencePair]
    validation: list[PreferencePair] = dataclasses.field(default_factory=list)
    objective: str = "sigmoid"
    grouped: bool = False

    def feed(self, settings: StageSettings) -> "PreferenceFeed":
        """Return the feed of the stage.

        Raises:
            UserError: there is no pair to train on.
        """
        if not self.train:
            raise UserError(f"stage {self.name} has no pairs to train on: give more data, or raise dataset.limit")
        return PreferenceFeed(self, settings)


def preference_steps(stage: PreferenceStage, settings: StageSettings) -> list[tuple[int, list[int]]]:
    """Return (epoch, numbers of the pairs) for each step of a stage: a pure function of the pairs and the settings."""
    found: list[tuple[int, list[int]]] = []
    most = settings.max_steps
    for epoch in itertools.count():
        random = np.random.Generator(np.random.PCG64([settings.seed, Stream.ORDER, epoch]))
        if stage.grouped:
            groups: dict[int, list[int]] = {}
            for number, pair in enumerate(stage.train):
                groups.setdefault(stage.data.prompt_of[pair.chosen], []).append(number)
            members = list(groups.values())
            steps: list[list[int]] = [[]]
            for place in random.permutation(len(members)):
                if len(steps[-1]) >= settings.batch_size:
                    steps.append([])
                steps[-1] += members[place]
        else:
            steps = batches(random.permutation(len(stage.train)).tolist(), settings.batch_size)
        if most is None:
            most = max(round(settings.epochs * len(steps)), 1)
        for step in steps:
            if len(found) == most:
                return found
            found.append((epoch, step))
    raise AssertionError("itertools.count() has no end")


class PreferenceFeed:
    """A `Feed` of preference pairs."""

    def __init__(self, stage: PreferenceStage, settings: StageSettings):
        self.stage, self.data = stage, stage.data
        self.objective = stage.objective
        self.steps = preference_steps(stage, settings)
        self._settings = settings
        self._held_out = batches(range(len(stage.validation)), 2 * settings.batch_size) if settings.validate else []
        steps = [[stage.train[n] for n in step] for _, step in self.steps]
        steps += [[stage.validation[n] for n in step] for step in self._held_out]
        used = sorted({response for step in steps for pair in step for response in pair})
        longest = max(map(self.data.path, used))
        stride = max(len(steps) // PLANNED_STEPS, 1)
        trees = [[tree for tree, _ in self.data.trees(self._responses(step))] for step in steps[::stride]]
        limit = max(settings.row_length, longest)
        self._shapes = sorted(set(plan(trees, limit, 2, longest=longest, together=settings.together)))
        # All steps get one size, because these arrays are small.
        self._pairs = rounded_up(max(map(len, steps)), 8)
        self._branches = rounded_up(max(len(self._responses(step)) for step in steps), 8)

    @staticmethod
    def _responses(pairs: Sequence[PreferencePair]) -> list[int]:
        return sorted({response for pair in pairs for response in pair})

    def batch(self, members: Sequence[int]) -> tuple[PackedBatch, int]:
        """Return a step's micro-batches stacked to [M, B, ...], and their number of tokens, without padding."""
        return self._batch([self.stage.train[number] for number in members])

    def _batch(self, pairs: Sequence[PreferencePair]) -> tuple[PackedBatch, int]:
        """Return the packed pairs as micro-batches of whole prompts, each with its branches, pairs and reference."""
        prompts = self.data.trees(self._responses(pairs))
        parts, rows = [prompts], self._settings.most_rows
        shape = shape_for([tree for tree, _ in prompts], self._shapes)
        if rows is not None and rows < shape.rows:
            parts, shape = self._cut(prompts, dataclasses.replace(shape, rows=rows))
        packed = [self._micro(part, pairs, shape) for part in parts]
        stacked = stack_batches([batch for batch, _ in packed])
        return stacked, sum(tokens for _, tokens in packed)

    def _cut(
        self, prompts: Sequence[tuple[Tree, list[int]]], shape: Shape
    ) -> tuple[list[list[tuple[Tree, list[int]]]], Shape]:
        """Return the prompts in parts that fit into a shape, and the shape, enlarged if a prompt alone does not fit."""
        parts: list[list[tuple[Tree, list[int]]]] = [[]]
        for prompt in prompts:
            if not parts[-1] or fits([tree for tree, _ in [*parts[-1], prompt]], shape):
                parts[-1].append(prompt)
            else:
                parts.append([prompt])
        for part in parts:
            tight = measure(split_trees([tree for tree, _ in part], shape.tokens), shape.tokens)
            most = max(shape.predictions, rounded_up(tight.predictions, 64))
            shape = dataclasses.replace(shape, rows=max(shape.rows, tight.rows), predictions=most)
        return parts, shape

    def _micro(
        self, prompts: Sequence[tuple[Tree, list[int]]], pairs: Sequence[PreferencePair], shape: Shape
    ) -> tuple[PackedBatch, int]:
        pieces, branch = [], {}
        for tree, responses in prompts:
            for piece, origin in split_tree(tree, shape.tokens):
                for segment, old in zip(piece, origin, strict=True):
                    if segment.scored:
                        branch[responses[old - 1]] = len(branch)
                pieces.append(piece)
        mine = [pair for pair in pairs if pair.chosen in branch]
        numbers = np.array([(branch[chosen], branch[rejected]) for chosen, rejected in mine], np.int32).reshape(-1, 2)
        preferences = _padded(numbers, self.data.reference[list(branch)], self._pairs, self._branches)
        batch = pack(pieces, shape).replace(preferences=preferences)  # type: ignore
        return batch, sum(map(tree_length, pieces))

    def tokens(self, members: Sequence[int]) -> int:
        """Return the number of tokens of a step's pairs, where each response counts its prompt, shared or not."""
        return sum(self.data.path(response) for number in members for response in self.stage.train[number])

    def validation_loss(self, read: ReadLogProbs) -> float | None:
        """Return the mean loss of the validation pairs; None if there are none."""
        if not self._held_out:
            return None
        hyper: Hyperparameters = jax.tree.map(np.float32, self._settings.hyper)
        total = count = 0.0
        for step in self._held_out:
            stacked, _ = self._batch([self.stage.validation[number] for number in step])
            for micro in range(stacked.tokens.shape[0]):
                batch = jax.tree.map(lambda x, micro=micro: x[micro], stacked)
                value, pairs, _ = objective_program(self.objective, read(batch).astype(np.float32), batch, hyper)
                total, count = total + float(value), count + float(pairs)
        return total / count

    def summary(self) -> dict[str, Any]:
        """Return what summary.json says about the data."""
        used = {response for _, step in self.steps for number in step for response in self.stage.train[number]}
        return {
            "pairs": len(self.stage.train),
            "validation_pairs": len(self.stage.validation),
            "distinct_responses": len(used),
            "truncated_prompts": sum(self.data.cut) / len(self.data.prompts),
        }


def _padded(pairs: Int32[np.ndarray, "n 2"], reference: Float[np.ndarray, " r"], most: int, wide: int) -> Preferences:
    """Return pairs of weight 1 and the reference of their branches, padded with zeros to [most] and [wide]."""
    numbers, weight = np.zeros((most, 2), np.int32), np.zeros(most, np.float32)
    numbers[: len(pairs)], weight[: len(pairs)] = pairs, 1.0
    of_branches = np.zeros(wide, np.float32)
    of_branches[: len(reference)] = reference
    return Preferences(numbers, weight, of_branches)
