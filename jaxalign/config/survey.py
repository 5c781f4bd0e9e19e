"""The configuration of python -m jaxalign.survey (conf/survey.yaml)."""

from dataclasses import dataclass
from typing import Annotated, Literal

from jaxalign.config.fields import Count
from jaxalign.config.model import CommandConfig
from jaxalign.config.schema import Rule


@dataclass(frozen=True, kw_only=True)
class SurveyConfig(CommandConfig):
    """The whole configuration (conf/survey.yaml)."""

    path: str
    out: str
    coding: Literal["reversed", "raw"]
    neighbours: Count
    separator: Annotated[str, Rule("one character, such as ';'", lambda text: len(text) == 1)] | None
    missing: tuple[int, ...]
