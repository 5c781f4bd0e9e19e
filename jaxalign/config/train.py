"""conf/train.yaml."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from jaxalign.config.dataset import DatasetConfig
from jaxalign.config.fields import Natural
from jaxalign.config.model import LoraConfig, ModelConfig, RunConfig
from jaxalign.config.training import ObjectiveConfig, OptimizerConfig, TrainingConfig
from jaxalign.config.values import AlignmentConfig, BenchmarkConfig, ValueConfig
from jaxalign.errors import UserError


@dataclass(frozen=True)
class ReleasedConfig:
    """Switches that bring back what the released code does, for reproduction."""

    label_shift: bool
    length_128: bool
    raw_coding: bool
    unmatched_budget: bool


@dataclass(frozen=True)
class TrainConfig:
    """conf/train.yaml."""

    run: RunConfig
    model: ModelConfig
    dataset: DatasetConfig
    alignment: AlignmentConfig
    benchmark: BenchmarkConfig
    training: TrainingConfig
    lora: LoraConfig
    optimizer: OptimizerConfig
    objective: ObjectiveConfig
    released: ReleasedConfig
    precision: Literal["bfloat16", "float32"]
    adapter: str | None
    inspect: Natural
    prefetch: bool
    offline: bool
    value: ValueConfig | None = None

    def __post_init__(self):
        if self.dataset.kind == "questions":
            raise UserError(f"dataset={self.dataset.name} is for python -m jaxalign.crest")
        if (self.objective.name == "dpo") != (self.dataset.kind == "pairs"):
            raise UserError("objective=dpo and dataset=pairs go together: give both, or neither")
        if self.objective.name == "dpo" and self.adapter is None:
            raise UserError("missing: adapter (objective=dpo starts from one, and holds it as the reference)")
        if self.value is not None and self.dataset.kind != "arguments":
            raise UserError(f"dataset={self.dataset.name} teaches no value: leave value={self.value.name} out")
        if self.value is not None and self.value.table and self.value.inverted != self.released.raw_coding:
            coding, switch = ("raw", "true") if self.value.inverted else ("reversed", "false")
            raise UserError(
                f"value.table={self.value.table} has coding={coding}, which goes with released.raw_coding={switch}: "
                "change the one or the other"
            )
        if self.alignment.name != "injection":
            raise UserError(
                f"alignment={self.alignment.name} trains nothing: python -m jaxalign.evaluate asks a model with it"
            )
        if self.benchmark.reading != "likelihood":
            raise UserError(
                f"benchmark.reading={self.benchmark.reading} is for python -m jaxalign.evaluate; "
                "training reads by likelihood"
            )


def missing_value(raw: Mapping[str, Any]) -> list[str]:
    """Return the key that training on arguments needs and that `raw` lacks."""
    dataset = raw.get("dataset")
    if raw.get("value") is None and isinstance(dataset, Mapping) and dataset.get("kind") == "arguments":
        return [f"value (dataset={dataset.get('name')} needs one: add for example +value=power)"]
    return []
