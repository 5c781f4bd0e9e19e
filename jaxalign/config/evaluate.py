"""The configuration of python -m jaxalign.evaluate (conf/evaluate.yaml)."""

from dataclasses import dataclass
from typing import cast

from jaxalign.config.fields import Uncounted
from jaxalign.config.generate import EngineConfig, SamplingConfig, check_served
from jaxalign.config.model import AskedAdaptersConfig, ModelCommandConfig, check_system
from jaxalign.config.safety import HarmConfig, HarmStage, JudgeConfig, LabelConfig, MitigationConfig
from jaxalign.config.values import AlignmentConfig, BenchmarkConfig, ValueConfig
from jaxalign.errors import UserError


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig(AskedAdaptersConfig, ModelCommandConfig):
    """The whole configuration (conf/evaluate.yaml).

    Judge, mitigation and engine count in the identities of the stages that they change (`jobs.harm`).
    """

    alignment: AlignmentConfig
    benchmark: BenchmarkConfig | HarmConfig
    judge: Uncounted[JudgeConfig]
    mitigation: Uncounted[MitigationConfig]
    engine: Uncounted[EngineConfig]
    stage: Uncounted[HarmStage]
    label: Uncounted[LabelConfig]
    value: ValueConfig | None = None

    def __post_init__(self):
        self.check_adapters()
        if self.alignment.name == "roleplay" and self.value is None:
            raise UserError("missing: value (alignment=roleplay needs one: add for example +value=power)")
        check_system(vars(self.model))
        if isinstance(self.benchmark, BenchmarkConfig):
            for key, given, usual in (
                ("stage", self.stage, "all"),
                ("judge", self.judge.name, "auto"),
                ("mitigation", self.mitigation.name, "none"),
                ("engine", self.engine.name, "jaxalign"),
            ):
                if given != usual and self.stage not in ("label", "fit_judge"):
                    raise UserError(
                        f"{key}={given} is for benchmarks of harm: add for example benchmark=starter_probes"
                    )
        check_served(self.engine, self)
        if self.engine.check:
            raise UserError("engine.check is for python -m jaxalign.generate")
        if self.stage in ("label", "fit_judge") and self.run.mirror is not None:
            raise UserError(f"stage={self.stage} writes to this machine alone: leave run.mirror out")
        if self.stage == "label" and self.run.dir is None:
            raise UserError("missing: run.dir (stage=label labels the responses of a run: add run=DIR)")

    @property
    def portraits(self) -> BenchmarkConfig:
        """The questionnaire; only for a command that asks it."""
        return cast(BenchmarkConfig, self.benchmark)

    @property
    def harm(self) -> HarmConfig:
        """The benchmark of harm; only for a command that asks it."""
        return cast(HarmConfig, self.benchmark)

    @property
    def sampling(self) -> SamplingConfig:
        """How responses to a benchmark of harm are sampled."""
        return self.harm.sampling
