"""Pairs of responses as a feed of the training loop: which pairs each step takes, and their packed batch.

A question stands in a batch once, and so does each distinct response to it; all pairs of the step are formed from them.
"""

import dataclasses
import itertools
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from jaxalign.data.bucketing import cost, plan
from jaxalign.data.order import Stream, batches
from jaxalign.data.packing import PackedBatch, Shape, measure, pack, rounded_up, split_tree, stack_batches
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
    """One stage of DPO: responses, the pairs to learn and to validate on, and how they are compared.

    `objective` is a `kind` of `dpo_loss`. `grouped` draws whole questions until a step has its pairs; otherwise pairs
    are drawn one by one.
    """

    name: str
    data: Responses
    train: list[PreferencePair]
    validation: list[PreferencePair] = dataclasses.field(default_factory=list)
    objective: str = "sigmoid"
    grouped: bool = False

    def feed(self, settings: StageSettings) -> "PreferenceFeed":
        """Return the stage as the training loop takes it.

        Raises:
            UserError: there is no pair to train on.
        """
        if not self.train:
            raise UserError(f"stage {self.name} has no pairs to train on")
        return PreferenceFeed(self, settings)


def preference_steps(stage: PreferenceStage, settings: StageSettings) -> list[tuple[int, list[int]]]:
    """Return (epoch, numbers of the pairs) of every step: a pure function of the pairs and the seed."""
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
    """A feed of preference pairs (see feed.py)."""

    def __init__(self, stage: PreferenceStage, settings: StageSettings):
        self.stage, self.data = stage, stage.data
        self.objective = stage.objective
        self.steps = preference_steps(stage, settings)
        self._settings = settings
        self._held_out = batches(range(len(stage.validation)), 2 * settings.batch_size) if settings.validate else []
        steps = [[stage.train[n] for n in step] for _, step in self.steps]
        steps += [[stage.validation[n] for n in step] for step in self._held_out]
        used = sorted({response for step in steps for pair in step for response in pair})
        self._longest = max(map(self.data.path, used))
        self._limit = max(settings.row_length, self._longest)
        stride = max(len(steps) // PLANNED_STEPS, 1)
        trees = [[tree for tree, _ in self.data.trees(self._responses(step))] for step in steps[::stride]]
        self._shapes = sorted(set(plan(trees, self._limit, 2, longest=self._longest)), key=cost)
        # One size for all steps: these arrays are small.
        self._pairs = rounded_up(max(map(len, steps)), 8)
        self._branches = rounded_up(max(len(self._responses(step)) for step in steps), 8)

    @staticmethod
    def _responses(pairs: Sequence[PreferencePair]) -> list[int]:
        return sorted({response for pair in pairs for response in pair})

    def batch(self, members: Sequence[int]) -> tuple[PackedBatch, int]:
        """See feed.py."""
        return self._batch([self.stage.train[number] for number in members])

    def _batch(self, pairs: Sequence[PreferencePair]) -> tuple[PackedBatch, int]:
        """Pack pairs: micro-batches of whole questions, each with its own branches, pairs and reference."""
        questions = self.data.trees(self._responses(pairs))
        parts = [questions]
        for shape in self._shapes:
            if self._fits(questions, shape):
                break
        else:  # unlike any step that was planned: a shape of its own
            pieces = [piece for tree, _ in questions for piece, _ in split_tree(tree, self._shapes[-1].tokens)]
            shape = measure(pieces, self._shapes[-1].tokens)
            shape = dataclasses.replace(shape, predictions=rounded_up(shape.predictions, 64))
        rows = self._settings.max_rows
        if rows is not None and rows < shape.rows:
            parts, shape = self._cut(questions, dataclasses.replace(shape, rows=rows))
        packed = [self._micro(part, pairs, shape) for part in parts]
        stacked = stack_batches([batch for batch, _ in packed])
        return stacked, sum(tokens for _, tokens in packed)

    def _fits(self, questions: Sequence[tuple[Tree, list[int]]], shape: Shape) -> bool:
        tight = measure([piece for tree, _ in questions for piece, _ in split_tree(tree, shape.tokens)], shape.tokens)
        return shape.rows >= tight.rows and shape.predictions >= tight.predictions

    def _cut(
        self, questions: Sequence[tuple[Tree, list[int]]], shape: Shape
    ) -> tuple[list[list[tuple[Tree, list[int]]]], Shape]:
        """Return the questions in parts that fit into a shape each; one alone that does not makes it larger."""
        parts: list[list[tuple[Tree, list[int]]]] = [[]]
        for question in questions:
            if not parts[-1] or self._fits([*parts[-1], question], shape):
                parts[-1].append(question)
            else:
                parts.append([question])
        for part in parts:
            pieces = [piece for tree, _ in part for piece, _ in split_tree(tree, shape.tokens)]
            tight = measure(pieces, shape.tokens)
            most = max(shape.predictions, rounded_up(tight.predictions, 64))
            shape = dataclasses.replace(shape, rows=max(shape.rows, tight.rows), predictions=most)
        return parts, shape

    def _micro(
        self, questions: Sequence[tuple[Tree, list[int]]], pairs: Sequence[PreferencePair], shape: Shape
    ) -> tuple[PackedBatch, int]:
        pieces, branch = [], {}
        for tree, responses in questions:
            for piece, origin in split_tree(tree, shape.tokens):
                for segment, old in zip(piece, origin, strict=True):
                    if segment.scored:
                        branch[responses[old - 1]] = len(branch)
                pieces.append(piece)
        mine = [pair for pair in pairs if pair.chosen in branch]
        indices = np.zeros((self._pairs, 2), np.int32)
        weight, reference = np.zeros(self._pairs, np.float32), np.zeros(self._branches, np.float32)
        indices[: len(mine)] = [(branch[chosen], branch[rejected]) for chosen, rejected in mine]
        weight[: len(mine)] = 1.0
        for response, number in branch.items():
            reference[number] = self.data.reference[response]
        batch = pack(pieces, shape).replace(preferences=Preferences(indices, weight, reference))  # type: ignore
        return batch, sum(map(tree_length, pieces))

    def tokens(self, members: Sequence[int]) -> int:
        """See feed.py."""
        return sum(self.data.path(response) for number in members for response in self.stage.train[number])

    def validation_loss(self, read: ReadLogProbs) -> float | None:
        """Return the mean loss over the validation pairs; None where there are none."""
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
        """See feed.py."""
        used = {response for _, step in self.steps for number in step for response in self.stage.train[number]}
        return {
            "pairs": len(self.stage.train),
            "validation_pairs": len(self.stage.validation),
            "distinct_responses": len(used),
            "truncated_prompts": sum(self.data.cut) / len(self.data.prompts),
        }
