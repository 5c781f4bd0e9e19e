"""The configurations of all commands, with types and allowed values. The comments in conf/ say what the keys mean."""

from collections.abc import Mapping
from typing import Any, TypeVar

from jaxalign.config import schema
from jaxalign.config.crest import CrestConfig
from jaxalign.config.evaluate import EvaluateConfig
from jaxalign.config.export import ExportConfig
from jaxalign.config.generate import GenerateConfig
from jaxalign.config.model import BaseModelConfig, check_preset_path
from jaxalign.config.report import ReportConfig
from jaxalign.config.study import StudyConfig
from jaxalign.config.survey import SurveyConfig
from jaxalign.config.train import TrainConfig, missing_value
from jaxalign.errors import UserError

Config = TypeVar(
    "Config",
    TrainConfig,
    ExportConfig,
    GenerateConfig,
    EvaluateConfig,
    SurveyConfig,
    CrestConfig,
    ReportConfig,
    StudyConfig,
)

SHORT = {"adapter": "adapter.path", "run": "run.dir"}
"""Keys that may be typed for longer ones: adapter=RUN is short for adapter.path=RUN."""

TEXTS = ("prompt", "model.system", "dataset.reply", "add.train", "add.evaluate", "add.report")
"""Keys whose value is free text: commas and quotation marks in it belong to the text."""


def read_config(kind: type[Config], raw: Mapping[str, Any]) -> Config:
    """Return the checked configuration from the composed keys; UserError names all keys that are wrong.

    `benchmark.reading: null` is what the command needs.
    """
    benchmark = raw.get("benchmark")
    if kind is TrainConfig and isinstance(benchmark, Mapping) and benchmark.get("kind") == "harm":
        raise UserError(f"benchmark={benchmark.get('name')} is for python -m jaxalign.evaluate")
    if isinstance(benchmark, Mapping) and benchmark.get("reading", "") is None:
        raw = {**raw, "benchmark": {**benchmark, "reading": "both" if kind is EvaluateConfig else "likelihood"}}
    config = schema.read(kind, raw, also_missing=missing_value(raw) if kind is TrainConfig else ())
    if isinstance(model := getattr(config, "model", None), BaseModelConfig):
        check_preset_path(model)
    return config
