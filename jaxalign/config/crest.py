"""The configuration of python -m jaxalign.crest (conf/crest.yaml)."""

from dataclasses import dataclass
from typing import Annotated, Any, Literal

from jaxalign.config.dataset import AnyDatasetConfig, QuestionsConfig
from jaxalign.config.fields import (
    Count,
    Epochs,
    Natural,
    NotNegative,
    Places,
    Positive,
    Rounds,
    Samples,
    TopP,
    Uncounted,
    Unit,
    whole,
)
from jaxalign.config.generate import SamplingConfig
from jaxalign.config.model import LoraConfig, ModelCommandConfig, ModelConfig, check_one_adapter
from jaxalign.config.training import AdamConfig, PreferenceLossConfig, ScheduleConfig, TrainingConfig
from jaxalign.errors import UserError


@dataclass(frozen=True, kw_only=True)
class CrestMethodConfig:
    """The method: which rationales are sampled, kept and preferred."""

    samples: Samples
    few_shot: bool
    tolerance: Natural | None
    mixing: Unit
    deduplicate: bool
    label: Literal["gold", "majority"]
    hint: bool
    iterations: Rounds
    continue_adapter: bool


@dataclass(frozen=True, kw_only=True)
class SftConfig(ScheduleConfig):
    """Supervised fine-tuning on the rationales that were kept."""

    epochs: Annotated[int, whole(0, 10_000)]
    max_steps: Count | None
    batch_size: Count
    rationale: bool


@dataclass(frozen=True, kw_only=True)
class DpoConfig(ScheduleConfig, PreferenceLossConfig):
    """Direct preference optimisation on the pairs of rationales."""

    rounds: Rounds
    steps: Count
    batch_size: Count
    resample: bool


@dataclass(frozen=True, kw_only=True)
class CrestTestConfig:
    """How a model is tested."""

    max_tokens: Count
    few_shot: bool
    samples: Samples
    temperature: NotNegative
    top_p: TopP


@dataclass(frozen=True, kw_only=True)
class SeedTrainingConfig:
    """The training of the starting adapter on solved questions."""

    epochs: Epochs
    learning_rate: Positive
    batch_size: Count


@dataclass(frozen=True, kw_only=True)
class ReleasedCrestConfig:
    """Switches that bring back what the released code does, for reproduction."""

    prompt_without_question: bool
    no_end_token: bool
    letters_in_words: bool
    followups_by_not: bool
    threshold: Natural | None
    examples_in_train: bool


@dataclass(frozen=True, kw_only=True)
class CrestConfig(ModelCommandConfig):
    """The whole configuration (conf/crest.yaml)."""

    model: ModelConfig
    dataset: AnyDatasetConfig
    reasoning: dict[str, Any]
    stage: Uncounted[Literal["all", "seed", "rationales", "evaluate", "sft", "preferences", "dpo", "test"]]
    compare: Uncounted[Places]
    crest: CrestMethodConfig
    sampling: SamplingConfig
    seed: SeedTrainingConfig
    sft: SftConfig
    dpo: DpoConfig
    test: CrestTestConfig
    lora: LoraConfig
    optimizer: AdamConfig
    training: TrainingConfig
    released: ReleasedCrestConfig

    def __post_init__(self):
        check_one_adapter(self.mesh)
        if not isinstance(self.dataset, QuestionsConfig):
            raise UserError(
                f"dataset={self.dataset.name} holds {self.dataset.kind}, and crest needs questions: "
                "puzzles, arc, csqa, reclor, or a file of your own with dataset=jsonl dataset.kind=questions"
            )
        if self.crest.iterations > 1 and not self.sft.epochs:
            raise UserError(
                "crest.iterations above 1 needs fine-tuning: give sft.epochs of at least 1, or crest.iterations=1"
            )

    @property
    def questions(self) -> QuestionsConfig:
        """The data set, which holds questions."""
        assert isinstance(self.dataset, QuestionsConfig)
        return self.dataset
