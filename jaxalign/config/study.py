"""The configuration of python -m jaxalign.study (conf/study.yaml)."""

from dataclasses import dataclass

from jaxalign.config.fields import Place
from jaxalign.config.model import CommandConfig
from jaxalign.errors import UserError


@dataclass(frozen=True, kw_only=True)
class AddedConfig:
    """More overrides for all steps of a command, as typed behind it."""

    train: str
    evaluate: str
    report: str


@dataclass(frozen=True, kw_only=True)
class StudyConfig(CommandConfig):
    """The whole configuration (conf/study.yaml)."""

    root: Place
    steps: tuple[str, ...]
    add: AddedConfig

    def __post_init__(self):
        if not self.steps:
            raise UserError("missing: steps (the commands to run): choose a study, such as experiment=harms_small")
