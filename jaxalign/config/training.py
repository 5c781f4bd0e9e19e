"""How a stage is trained."""

from dataclasses import dataclass
from typing import Annotated, Literal

from jaxalign.config.fields import Betas, Count, Natural, NotNegative, Positive, Seed
from jaxalign.config.schema import Rule
from jaxalign.errors import UserError


@dataclass(frozen=True)
class TrainingConfig:
    """The course of the training."""

    epochs: Positive
    max_steps: Count | None
    batch_size: Count
    seed: Seed
    log_every: Count
    checkpoint_every: Count
    keep_checkpoints: Count
    row_length: Count | None
    max_rows: Count | None
    packing: bool
    share_prompts: bool
    rematerialisation: Literal["projections", "full", "none"]
    validate: bool
    questionnaire: bool


@dataclass(frozen=True)
class OptimizerConfig:
    """The optimiser and its schedule."""

    name: Literal["adamw"]
    learning_rate: Positive
    betas: Betas
    epsilon: Positive
    weight_decay: NotNegative
    schedule: Literal["constant", "linear", "cosine"]
    warmup_steps: Natural
    clip: Positive | None


@dataclass(frozen=True)
class ObjectiveConfig:
    """What is minimised."""

    name: Literal["sft", "dpo"]
    loss: Literal["sigmoid", "ipo", "hinge"] = "sigmoid"
    beta: Positive = 0.1
    label_smoothing: Annotated[float, Rule("a number of at least 0 and below 0.5", lambda x: 0 <= x < 0.5)] = 0.0
    likelihood: NotNegative = 0.0
    batching: Literal["grouped", "paired"] = "grouped"

    def __post_init__(self):
        if self.label_smoothing and self.loss != "sigmoid":
            raise UserError(f"label_smoothing goes with loss=sigmoid, not with loss={self.loss}: leave it at 0")
