"""What the training loop is fed with: batches by step, for any objective."""

import dataclasses
from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

from jaxalign.data.packing import PackedBatch
from jaxalign.objectives.forward import ReadLogProbs
from jaxalign.training.optimizer import Hyperparameters

PLANNED_STEPS = 48
"""Steps that the shapes are planned on, spread over the stage; a step that fits none of them, or sees more blocks of
keys, gets its own."""


@dataclasses.dataclass(frozen=True)
class StageSettings:
    """How a stage is run. See conf/train.yaml, `training` and `optimizer`, for each field.

    `max_tokens` ends the stage after so many non-padding tokens instead of after its epochs.
    """

    epochs: int | float
    max_steps: int | None
    max_tokens: int | None
    batch_size: int
    seed: int
    log_every: int
    checkpoint_every: int
    keep_checkpoints: int
    row_length: int
    max_rows: int | None
    packing: bool
    share_prompts: bool
    validate: bool
    optimizer: str
    schedule: str
    warmup_steps: int
    hyper: Hyperparameters


@runtime_checkable
class Feed(Protocol):
    """A stage's steps and their batches: a pure function of data and settings, so that resuming needs no state."""

    @property
    def objective(self) -> str:
        """What is minimised (see `step.objective`)."""
        ...

    @property
    def steps(self) -> Sequence[tuple[int, list[int]]]:
        """Of each step its epoch, and the numbers of what it takes."""
        ...

    def batch(self, members: Sequence[int]) -> tuple[PackedBatch, int]:
        """Return a step's micro-batches stacked to [M, B, ...], and how many tokens stand in them."""
        ...

    def tokens(self, members: Sequence[int]) -> int:
        """Return the tokens of a step's examples, each with a prompt of its own."""
        ...

    def validation_loss(self, read: ReadLogProbs) -> float | None:
        """Return the mean loss on what is held out; None where nothing is."""
        ...

    def summary(self) -> dict[str, Any]:
        """Return what summary.json says of the data."""
        ...


@runtime_checkable
class Stage(Protocol):
    """The data of a stage, which become a feed under the settings of its run."""

    @property
    def name(self) -> str:
        """What records and checkpoints call it."""
        ...

    def feed(self, settings: StageSettings) -> Feed:
        """Return the steps; raises UserError where there is nothing to train on."""
        ...
