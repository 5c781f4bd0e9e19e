"""conf/crest.yaml."""

from dataclasses import dataclass
from typing import Annotated, Any, Literal

from jaxalign.config.dataset import DatasetConfig
from jaxalign.config.fields import Betas, Count, Natural, NotNegative, Positive, Seed, Stops, TopP
from jaxalign.config.model import LoraConfig, ModelConfig, RunConfig
from jaxalign.config.schema import Rule
from jaxalign.errors import UserError


@dataclass(frozen=True)
class CrestMethodConfig:
    """The method: what is sampled, kept and preferred."""

    samples: Count
    few_shot: bool
    tolerance: Natural | None
    mixing: Annotated[float, Rule("a number from 0 to 1", lambda x: 0 <= x <= 1)]
    deduplicate: bool
    label: Literal["gold", "majority"]
    hint: bool
    iterations: Natural
    continue_adapter: bool


@dataclass(frozen=True)
class SftConfig:
    """Supervised fine-tuning on what was kept."""

    epochs: Natural
    max_steps: Count | None
    batch_size: Count
    learning_rate: Positive
    schedule: Literal["constant", "linear", "cosine"]
    warmup_steps: Natural
    rationale: bool


@dataclass(frozen=True)
class DpoConfig:
    """Direct preference optimisation on the pairs."""

    rounds: Natural
    steps: Count
    batch_size: Count
    batching: Literal["grouped", "paired"]
    resample: bool
    loss: Literal["sigmoid", "ipo", "hinge"]
    beta: Positive
    label_smoothing: Annotated[float, Rule("a number of at least 0 and below 0.5", lambda x: 0 <= x < 0.5)]
    likelihood: NotNegative
    learning_rate: Positive
    schedule: Literal["constant", "linear", "cosine"]
    warmup_steps: Natural

    def __post_init__(self):
        if self.label_smoothing and self.loss != "sigmoid":
            raise UserError(f"dpo.label_smoothing goes with dpo.loss=sigmoid, not with dpo.loss={self.loss}")


@dataclass(frozen=True)
class CrestTestConfig:
    """How a model is tested."""

    max_tokens: Count
    few_shot: bool
    samples: Count
    temperature: NotNegative
    top_p: TopP


@dataclass(frozen=True)
class SeedConfig:
    """The starting adapter, trained on solved questions."""

    epochs: Positive
    learning_rate: Positive
    batch_size: Count


@dataclass(frozen=True)
class CrestSamplingConfig:
    """How rationales are drawn."""

    temperature: NotNegative
    top_p: TopP
    top_k: Natural
    max_tokens: Count
    stop: Stops
    seed: Seed
    rows: Count


@dataclass(frozen=True)
class AdamConfig:
    """AdamW, the same for every training."""

    betas: Betas
    epsilon: Positive
    weight_decay: NotNegative
    clip: Positive | None


@dataclass(frozen=True)
class CrestTrainingConfig:
    """The course of every training."""

    seed: Seed
    log_every: Count
    checkpoint_every: Count
    keep_checkpoints: Count
    row_length: Count | None
    max_rows: Count | None
    rematerialisation: Literal["projections", "full", "none"]


@dataclass(frozen=True)
class ReleasedCrestConfig:
    """Switches that bring back what the released code does."""

    prompt_without_question: bool
    no_end_token: bool
    letters_in_words: bool
    followups_by_not: bool
    threshold: Natural | None
    examples_in_train: bool


@dataclass(frozen=True)
class CrestConfig:
    """conf/crest.yaml."""

    run: RunConfig
    model: ModelConfig
    dataset: DatasetConfig
    reasoning: dict[str, Any]
    stage: Literal["all", "seed", "rationales", "evaluate", "sft", "preferences", "dpo", "test"]
    compare: tuple[str, ...]
    crest: CrestMethodConfig
    sampling: CrestSamplingConfig
    seed: SeedConfig
    sft: SftConfig
    dpo: DpoConfig
    test: CrestTestConfig
    lora: LoraConfig
    optimizer: AdamConfig
    training: CrestTrainingConfig
    released: ReleasedCrestConfig
    precision: Literal["bfloat16", "float32"]
    prefetch: bool
    offline: bool

    def __post_init__(self):
        if self.dataset.kind != "questions":
            raise UserError(
                f"dataset={self.dataset.name} holds {self.dataset.kind}, and crest needs questions: "
                "puzzles, arc, csqa or reclor"
            )
        if self.crest.iterations > 1 and not self.sft.epochs:
            raise UserError("crest.iterations needs fine-tuning: give sft.epochs of at least 1, or crest.iterations=1")
