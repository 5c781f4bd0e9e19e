"""The configuration of python -m jaxalign.evaluate (conf/evaluate.yaml)."""

from dataclasses import dataclass

from jaxalign.config.model import AskedAdaptersConfig, AskedModelConfig, ModelCommandConfig, check_system
from jaxalign.config.values import AlignmentConfig, BenchmarkConfig, ValueConfig
from jaxalign.errors import UserError


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig(AskedAdaptersConfig, ModelCommandConfig):
    """The whole configuration (conf/evaluate.yaml)."""

    model: AskedModelConfig
    alignment: AlignmentConfig
    benchmark: BenchmarkConfig
    value: ValueConfig | None = None

    def __post_init__(self):
        self.check_adapters()
        if self.alignment.name == "roleplay" and self.value is None:
            raise UserError("missing: value (alignment=roleplay needs one: add for example +value=power)")
        check_system(vars(self.model))
