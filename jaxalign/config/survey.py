"""The configuration of python -m jaxalign.survey (conf/survey.yaml)."""

from dataclasses import dataclass
from typing import Annotated, Literal

from jaxalign.config.fields import Count, Place
from jaxalign.config.model import CommandConfig
from jaxalign.config.schema import Rule


@dataclass(frozen=True, kw_only=True)
class SurveyConfig(CommandConfig):
    """The whole configuration (conf/survey.yaml)."""

    path: Place
    out: Place
    coding: Literal["reversed", "raw"]
    neighbours: Count
    separator: Annotated[str, Rule("one character, such as ';'", lambda text: len(text) == 1)] | None
    missing: tuple[int, ...]
