"""The configuration of python -m jaxalign.crest (conf/crest.yaml)."""

from dataclasses import dataclass
from typing import Annotated, Any, Literal, get_args

from jaxalign.config.dataset import AnyDatasetConfig, QuestionsConfig
from jaxalign.config.fields import (
    Count,
    Epochs,
    Natural,
    Places,
    Positive,
    Rounds,
    Samples,
    Uncounted,
    Unit,
    whole,
)
from jaxalign.config.generate import ResponsesConfig, SamplingConfig
from jaxalign.config.model import LoraConfig, ModelCommandConfig, ModelConfig, check_one_adapter
from jaxalign.config.safety import JudgeConfig
from jaxalign.config.training import AdamConfig, PreferenceLossConfig, ScheduleConfig, TrainingConfig
from jaxalign.errors import UserError

CrestStage = Literal["seed", "rationales", "evaluate", "sft", "preferences", "dpo", "test", "grade"]
STAGES: tuple[str, ...] = get_args(CrestStage)
"""All stages, in their order. Those of a later iteration are called rationales-2 and so on. The last two work in the
run itself."""


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
class CrestTestConfig(ResponsesConfig):
    """How a model is tested: how it answers each question."""

    few_shot: bool


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


def check_grading(stage: str, judge: JudgeConfig | None) -> None:
    """Raise UserError if the stage lacks its judge, or the judge is not one that grades rationales as it is set."""
    if judge is None:
        if stage == "grade":
            raise UserError(
                "missing: judge (stage=grade needs one: add judge=rubric_local judge.model=ID_OR_FOLDER, or "
                "judge=rubric_api)"
            )
        return
    if stage != "grade":
        raise UserError(f"judge={judge.name} grades the rationales of a finished run: add stage=grade, or leave it out")
    if judge.name not in ("rubric_local", "rubric_api"):
        raise UserError(f"judge={judge.name} grades no rationales: give judge=rubric_local or judge=rubric_api")
    for key in ("rubric", "repeat", "refusal", "refusal_model", "refusal_weights", "labels", "corrected"):
        if getattr(judge, key) != getattr(JudgeConfig, key):
            raise UserError(f"judge.{key} is for python -m jaxalign.evaluate, and stage=grade has no use for it")


@dataclass(frozen=True, kw_only=True)
class CrestConfig(ModelCommandConfig):
    """The whole configuration (conf/crest.yaml). The judge has no part in a run's numbers: it grades finished runs."""

    model: ModelConfig
    dataset: AnyDatasetConfig
    reasoning: dict[str, Any]
    stage: Uncounted[Literal["all", CrestStage]]
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
    judge: Uncounted[JudgeConfig | None] = None

    def __post_init__(self):
        check_one_adapter(self.mesh)
        check_grading(self.stage, self.judge)
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
