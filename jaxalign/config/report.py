"""The configuration of python -m jaxalign.report (conf/report.yaml)."""

from dataclasses import dataclass
from typing import Literal

from jaxalign.config.fields import Count, Natural, Place
from jaxalign.config.model import CommandConfig
from jaxalign.errors import UserError


@dataclass(frozen=True, kw_only=True)
class ReportConfig(CommandConfig):
    """The whole configuration (conf/report.yaml)."""

    runs: Place | None
    out: Place | None
    ability: Place | None
    texts: Natural
    paper: bool
    plan: bool
    targets: Place | None
    categories: Count
    export: Literal["inspect"] | None

    def __post_init__(self):
        if self.runs is None and not self.plan:
            raise UserError("missing: runs (the folder that holds the runs, such as runs=outputs)")
        if self.plan and self.ability is not None:
            raise UserError("ability= has no place in plan=true: leave one of them out")
        if self.targets is not None and not (self.plan and self.runs is None):
            raise UserError("targets= is for plan=true without runs=: add plan=true, or leave targets= out")
        if self.export is not None and not self.texts:
            raise UserError(
                f"export={self.export} writes all prompts and responses, and texts=0 makes a report without them: "
                "leave one of them out"
            )
