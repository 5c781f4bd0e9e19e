"""The configuration of python -m jaxalign.export (conf/export.yaml)."""

from dataclasses import dataclass
from typing import Literal

from jaxalign.config.fields import Place
from jaxalign.config.model import CommandConfig


@dataclass(frozen=True, kw_only=True)
class ExportConfig(CommandConfig):
    """The whole configuration (conf/export.yaml)."""

    run: Place
    out: Place
    format: Literal["peft", "merged"]
    verify: bool
    harm: Place | None
