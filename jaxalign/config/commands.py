"""Every key of conf/ with its type and its allowed values. What the keys mean stands beside them in conf/."""

from collections.abc import Mapping
from typing import Any, TypeVar

from jaxalign.config import schema
from jaxalign.config.crest import CrestConfig
from jaxalign.config.evaluate import EvaluateConfig
from jaxalign.config.export import ExportConfig
from jaxalign.config.generate import GenerateConfig
from jaxalign.config.survey import SurveyConfig
from jaxalign.config.train import TrainConfig, missing_value

Config = TypeVar("Config", TrainConfig, ExportConfig, GenerateConfig, EvaluateConfig, SurveyConfig, CrestConfig)

TEXTS = ("prompt", "model.system", "dataset.reply")
"""Keys whose value is taken as it stands, commas, quotes and all."""


def read_config(kind: type[Config], raw: Mapping[str, Any]) -> Config:
    """Return the composed configuration, checked; raises UserError for all that is wrong with it."""
    return schema.read(kind, raw, also_missing=missing_value(raw) if kind is TrainConfig else ())
