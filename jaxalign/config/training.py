"""How stages are trained: the settings that value injection and CREST share, and those of `jaxalign.train`."""

from dataclasses import dataclass
from typing import Annotated, Literal

from jaxalign.config.fields import (
    Betas,
    Count,
    Epochs,
    Natural,
    NotNegative,
    Positive,
    RowLength,
    Schedule,
    Seed,
    Uncounted,
)
from jaxalign.config.schema import Rule
from jaxalign.errors import UserError


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """Seed, logging, checkpoints and rows of every training."""

    seed: Seed
    log_every: Uncounted[Count]
    checkpoint_every: Uncounted[Count]
    keep_checkpoints: Uncounted[Count]
    row_length: RowLength | None
    max_rows: Count | None
    rematerialisation: Uncounted[Literal["projections", "full", "none"]]


@dataclass(frozen=True, kw_only=True)
class InjectionTrainingConfig(TrainingConfig):
    """The length and the batches of a training by jaxalign.train, and what is measured beside it."""

    epochs: Epochs
    max_steps: Count | None
    batch_size: Count
    packing: bool
    share_prompts: bool
    validate: bool
    questionnaire: bool


@dataclass(frozen=True, kw_only=True)
class AdamConfig:
    """The settings of AdamW except its learning rate."""

    betas: Betas
    epsilon: Positive
    weight_decay: NotNegative
    clip: Positive | None


@dataclass(frozen=True, kw_only=True)
class ScheduleConfig:
    """The learning rate and its schedule."""

    learning_rate: Positive
    schedule: Schedule
    warmup_steps: Natural


@dataclass(frozen=True, kw_only=True)
class OptimizerConfig(AdamConfig, ScheduleConfig):
    """The optimiser and its schedule."""

    name: Literal["adamw"]


@dataclass(frozen=True, kw_only=True)
class PreferenceLossConfig:
    """The loss over preference pairs."""

    loss: Literal["sigmoid", "ipo", "hinge"] = "sigmoid"
    beta: Positive = 0.1
    label_smoothing: Annotated[float, Rule("a number of at least 0 and below 0.5", lambda x: 0 <= x < 0.5)] = 0.0
    likelihood: NotNegative = 0.0
    batching: Literal["grouped", "paired"] = "grouped"

    def __post_init__(self):
        if self.label_smoothing and self.loss != "sigmoid":
            raise UserError(f"label_smoothing goes with loss=sigmoid, not with loss={self.loss}: leave it at 0")


@dataclass(frozen=True, kw_only=True)
class ObjectiveConfig(PreferenceLossConfig):
    """The loss that is minimised; `name` is the name of the objective."""

    name: str
