"""Which value, how it is taught, and how it is asked about."""

from dataclasses import dataclass
from typing import Annotated, Any, Literal

from jaxalign.config.fields import Count, Part, Positive
from jaxalign.config.schema import Rule
from jaxalign.errors import UserError
from jaxalign.values.targets import Target, make_target, read_target


@dataclass(frozen=True)
class ValueConfig:
    """The target: a score for each of the ten values, given, or (`table`) those of a survey's respondent.

    `name` and `scores` are never None in an instance.
    """

    name: str | None = None
    scores: dict[str, float] | None = None
    coding: Literal["importance", "survey"] = "importance"
    table: str | None = None
    anchor: str | None = None
    rank: Count | None = None

    def __post_init__(self):
        if self.table is not None:
            missing = [f"value.{name}" for name in ("anchor", "rank") if getattr(self, name) is None]
            if missing:
                raise UserError(f"missing: {', '.join(missing)} (value.table needs it)")
            name, scores, _ = read_target(self.table, str(self.anchor), int(self.rank or 0))
            object.__setattr__(self, "name", self.name or name)
            object.__setattr__(self, "scores", scores | (self.scores or {}))
        missing = [f"value.{name}" for name in ("name", "scores") if getattr(self, name) is None]
        if missing:
            raise UserError(f"missing: {', '.join(missing)}")
        make_target(str(self.name), self.scores or {}, self.coding)

    @property
    def inverted(self) -> bool:
        """Whether the scores are those of a table of inverted people."""
        return self.table is not None and read_target(self.table, str(self.anchor), int(self.rank or 0))[2] == "raw"

    def survey_coding(self, raw_coding: bool) -> str | None:
        """Return the coding of the survey that the target is from: `raw` (inverted people) or `reversed`; None for a
        target that is from none."""
        if self.table is None and self.coding != "survey":
            return None
        return "raw" if raw_coding else "reversed"

    def target(self, raw_coding: bool = False) -> Target:
        """Return the target; `raw_coding` leaves scores in survey coding as they are."""
        return make_target(str(self.name), self.scores or {}, self.coding, raw_coding=raw_coding)


@dataclass(frozen=True)
class AlignmentConfig:
    """How arguments become training examples."""

    name: Literal["injection", "roleplay"]
    argument_epochs: Positive | None
    validation_fraction: Part
    balance: bool
    positive_balance: bool
    shuffle_labels: bool
    prompts: dict[str, Any]
    roleplay: dict[str, Any] | None = None


@dataclass(frozen=True)
class BenchmarkConfig:
    """How the questionnaire is asked and read."""

    name: Literal["portraits"]
    portraits: str
    reading: Literal["likelihood", "parse", "both"]
    max_tokens: Count
    limit: Annotated[int, Rule("a whole number of at least 10 (one portrait for each value)", lambda n: n >= 10)] | None
    choice: bool
    prompts: dict[str, Any]
