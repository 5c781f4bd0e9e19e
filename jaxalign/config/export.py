"""conf/export.yaml."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class ExportConfig:
    """conf/export.yaml."""

    run: str
    out: str
    format: Literal["peft", "merged"]
    verify: bool
    prefetch: bool
    offline: bool
