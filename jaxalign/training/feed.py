"""The interfaces between the training loop and its data: a stage, its settings, and the feed of its batches."""

import dataclasses
from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

from jaxalign.data.packing import PackedBatch, rounded_up
from jaxalign.objectives.forward import ReadLogProbs
from jaxalign.parallel.rules import Placement
from jaxalign.training.optimizer import Hyperparameters
from jaxalign.training.regularising_texts import RegularisingTexts

PLANNED_STEPS = 48
"""The number of steps, spread over the stage, from which shapes are planned. A step that fits no planned shape, or that
sees more blocks of keys, gets its own."""


@dataclasses.dataclass(frozen=True)
class StageSettings:
    """How a stage is trained. conf/train.yaml describes each field, under `training` and `optimizer`.

    If `max_tokens` is given, the stage ends after so many tokens (padding does not count), whatever its epochs. With
    `regularising`, the divergence from the base on these texts, times `hyper.divergence`, is added to the loss of each
    step. `together` is the number of devices that share the rows of a batch; it changes how examples are packed, and
    nothing else.
    """

    epochs: int | float
    batch_size: int
    row_length: int
    hyper: Hyperparameters
    max_steps: int | None = None
    max_tokens: int | None = None
    max_rows: int | None = None
    seed: int = 0
    optimizer: str = "adamw"
    schedule: str = "linear"
    warmup_steps: int = 0
    packing: bool = True
    share_prompts: bool = True
    validate: bool = True
    log_every: int = 10
    checkpoint_every: int = 10**9
    keep_checkpoints: int = 1
    regularising: RegularisingTexts | None = None
    together: int = 1

    @property
    def most_rows(self) -> int | None:
        """The largest number of rows in a micro-batch: `max_rows`, rounded up so that each device gets equally many."""
        return None if self.max_rows is None else rounded_up(self.max_rows, self.together)

    def shared_on(self, placement: Placement | None) -> "StageSettings":
        """Return these settings for the devices of a placement; None for one device."""
        return self if placement is None else dataclasses.replace(self, together=placement.parts("rows"))


@runtime_checkable
class Feed(Protocol):
    """The steps of a stage and their batches: a pure function of data and settings, so that resuming needs no state."""

    @property
    def objective(self) -> str:
        """The name of the loss (see `step.objective`)."""
        ...

    @property
    def steps(self) -> Sequence[tuple[int, list[int]]]:
        """For each step its epoch, and the numbers of its examples (or pairs)."""
        ...

    def batch(self, members: Sequence[int]) -> tuple[PackedBatch, int]:
        """Return a step's micro-batches stacked to [M, B, ...], and their number of tokens, without padding."""
        ...

    def tokens(self, members: Sequence[int]) -> int:
        """Return the number of tokens of a step's examples, where each counts its prompt, shared or not."""
        ...

    def validation_loss(self, read: ReadLogProbs) -> float | None:
        """Return the mean loss on the validation data; None if there is none."""
        ...

    def summary(self) -> dict[str, Any]:
        """Return what summary.json says about the data."""
        ...


@runtime_checkable
class Stage(Protocol):
    """The data of a stage. Together with settings they make a feed."""

    @property
    def name(self) -> str:
        """The stage's name in records and checkpoints."""
        ...

    def feed(self, settings: StageSettings) -> Feed:
        """Return the feed of the stage; raises UserError if there is nothing to train on."""
        ...
