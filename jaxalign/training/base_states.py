"""The states of the bare base that predict the regularising texts, read for several steps at once."""

import dataclasses
from collections.abc import Callable
from functools import cached_property
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Float

from jaxalign.data.packing import PackedBatch
from jaxalign.data.placed_batch import on_mesh
from jaxalign.models.lora import NO_ADAPTER
from jaxalign.models.transformer import Transformer
from jaxalign.objectives.forward import states_program
from jaxalign.parallel.compilation import Programs
from jaxalign.parallel.placing import described, placed
from jaxalign.training.regularising_texts import RegularisingTexts
from jaxalign.training.step import HeldTexts, step_batch

STEPS_TOGETHER, TOKENS_TOGETHER = 8, 2048
"""The largest number of steps whose texts are read together, and of their tokens: one row alone would be slow to read,
and long ones need memory."""


@dataclasses.dataclass
class BaseReader:
    """Reads the texts of a stage's steps, and of its validation, with the base.

    The texts of steps are read in groups, counted from step 0, so that a step gets the same numbers in a run that goes
    on.
    """

    model: Transformer
    params: Any
    texts: RegularisingTexts
    seed: int
    programs: Programs
    newest: tuple[int, Array] | None = None
    """The number of the group that was read last, and its states [C, P, D], of at least as many rows as steps."""

    @property
    def together(self) -> int:
        """The number of steps in a group."""
        return max(min(STEPS_TOGETHER, TOKENS_TOGETHER // self.texts.tokens), 1)

    def of_step(self, step: int) -> HeldTexts:
        """Return what the program of a step takes."""
        group, turn = divmod(step, self.together)
        if self.newest is None or self.newest[0] != group:
            self.newest = group, self._read(self._group(group))
        return step_batch(self.model, self.texts.batch(self.seed, step)), self.newest[1], np.asarray(turn, np.int32)

    def planned(self) -> Any:
        """Return the shapes and types of what `of_step` returns."""
        texts, placement = self.texts.batch(self.seed, 0), self.model.placement
        several = on_mesh(placement, self._group(0), put=described).source  # on a mesh perhaps more rows than steps
        shape = (*several.shape, self.model.architecture.width)
        states = described(placement, np.broadcast_to(np.zeros((), self.model.dtype), shape))
        return step_batch(self.model, texts, put=described), states, np.asarray(0, np.int32)

    def compile_ahead(self) -> None:
        """Begin to compile the program that reads, in another thread."""
        self.programs.start(states_program, (self.model,), self._arguments(self._group(0), described))

    @cached_property
    def held_out(self) -> tuple[PackedBatch, Float[Array, "B P D"]]:
        """The texts of the validation on the mesh, and the base's states."""
        texts = self.texts.validation()
        return on_mesh(self.model.placement, texts), self._read(texts)

    def _group(self, group: int) -> PackedBatch:
        first = group * self.together
        batches = [self.texts.batch(self.seed, step) for step in range(first, first + self.together)]
        return jax.tree.map(lambda *rows: np.concatenate(rows), *batches)

    def _read(self, texts: PackedBatch) -> Float[Array, "B P D"]:
        arguments = self._arguments(texts)
        return self.programs.get("read the base", states_program, (self.model,), arguments)(*arguments)

    def _arguments(self, texts: PackedBatch, put: Callable[..., Any] = placed) -> tuple[Any, ...]:
        return self.params, NO_ADAPTER, np.float32(1), on_mesh(self.model.placement, texts, put=put)
