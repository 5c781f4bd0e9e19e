"""The configuration of python -m jaxalign.train (conf/train.yaml)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from jaxalign.config.dataset import AnyDatasetConfig, ArgumentsConfig, PairsConfig, QuestionsConfig
from jaxalign.config.fields import Natural, Place, Uncounted
from jaxalign.config.model import LoraConfig, ModelCommandConfig, ModelConfig, check_one_adapter
from jaxalign.config.training import InjectionTrainingConfig, ObjectiveConfig, OptimizerConfig
from jaxalign.config.values import AlignmentConfig, BenchmarkConfig, ValueConfig
from jaxalign.errors import UserError


@dataclass(frozen=True, kw_only=True)
class ReleasedConfig:
    """Switches that bring back what the released code does, for reproduction."""

    label_shift: bool
    length_128: bool
    raw_coding: bool
    unmatched_budget: bool


@dataclass(frozen=True, kw_only=True)
class TrainConfig(ModelCommandConfig):
    """The whole configuration (conf/train.yaml)."""

    model: ModelConfig
    dataset: AnyDatasetConfig
    alignment: AlignmentConfig
    benchmark: BenchmarkConfig
    training: InjectionTrainingConfig
    lora: LoraConfig
    optimizer: OptimizerConfig
    objective: ObjectiveConfig
    released: ReleasedConfig
    adapter: Uncounted[Place | None]
    inspect: Uncounted[Natural]
    plan: Uncounted[bool]
    value: ValueConfig | None = None

    def __post_init__(self):
        check_one_adapter(self.mesh)
        preferences = isinstance(self.dataset, PairsConfig)
        if isinstance(self.dataset, QuestionsConfig):
            raise UserError(f"dataset={self.dataset.name} is for python -m jaxalign.crest")
        if (self.objective.name == "dpo") != preferences:
            raise UserError("objective=dpo and dataset.kind=pairs go together: give both, or neither")
        if preferences and self.adapter is None:
            raise UserError("missing: adapter (objective=dpo starts from one, which is also its reference)")
        if preferences and self.inspect:
            raise UserError("inspect shows supervised examples, and dataset.kind=pairs has none: leave it out")
        if self.value is not None and not isinstance(self.dataset, ArgumentsConfig):
            raise UserError(f"dataset={self.dataset.name} teaches no value: leave value={self.value.name} out")
        if self.alignment.name != "injection":
            raise UserError(f"alignment={self.alignment.name} trains nothing: it is for python -m jaxalign.evaluate")
        if self.benchmark.reading != "likelihood":
            raise UserError(
                f"benchmark.reading={self.benchmark.reading} is for python -m jaxalign.evaluate; "
                "training reads by likelihood"
            )


def missing_value(raw: Mapping[str, Any]) -> list[str]:
    """Return the line about a missing `value`, which training on arguments needs; empty if nothing is missing."""
    dataset = raw.get("dataset")
    if raw.get("value") is None and isinstance(dataset, Mapping) and dataset.get("kind") == "arguments":
        return [f"value (dataset={dataset.get('name')} needs one: add for example +value=power)"]
    return []
