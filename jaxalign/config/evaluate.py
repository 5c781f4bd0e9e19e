"""conf/evaluate.yaml."""

from dataclasses import dataclass
from typing import Literal

from jaxalign.config.model import AdapterConfig, AskedModelConfig, RunConfig
from jaxalign.config.values import AlignmentConfig, BenchmarkConfig, ValueConfig
from jaxalign.errors import UserError


@dataclass(frozen=True)
class EvaluateConfig:
    """conf/evaluate.yaml."""

    run: RunConfig
    model: AskedModelConfig
    alignment: AlignmentConfig
    benchmark: BenchmarkConfig
    adapter: AdapterConfig
    adapters: tuple[str, ...]
    precision: Literal["bfloat16", "float32"]
    prefetch: bool
    offline: bool
    value: ValueConfig | None = None

    def __post_init__(self):
        if self.adapter.path is not None and self.adapters:
            raise UserError("adapter and adapters are both given: name all of them in adapters=[A,B]")
        if self.alignment.name == "roleplay" and self.value is None:
            raise UserError("missing: value (alignment=roleplay needs one: add for example +value=power)")
        self.model.check_system()
