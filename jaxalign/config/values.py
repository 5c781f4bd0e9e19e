"""Which value is taught, how it is taught, and how the questionnaire asks about it."""

from dataclasses import dataclass
from typing import Annotated, Any, Literal

from jaxalign.config.fields import Count, Epochs, Natural, NotNegative, Part, Place, PlainTokens, Uncounted
from jaxalign.config.schema import Rule
from jaxalign.errors import UserError
from jaxalign.values.targets import make_target


@dataclass(frozen=True, kw_only=True)
class ValueConfig:
    """The target: a score for each of the ten values, or, with `table`, a survey respondent, whose scores `scores` may
    change. `values.targets.find_target` makes a `Target` of these keys."""

    name: str | None = None
    scores: dict[str, float] | None = None
    coding: Literal["importance", "survey"] = "importance"
    table: Uncounted[Place | None] = None
    anchor: str | None = None
    rank: Count | None = None

    def __post_init__(self):
        needed = ("name", "scores") if self.table is None else ("anchor", "rank")
        missing = [f"value.{name}" for name in needed if getattr(self, name) is None]
        if missing:
            raise UserError(f"missing: {', '.join(missing)}{'' if self.table is None else ' (value.table needs it)'}")
        if self.table is None:
            make_target(str(self.name), self.scores or {}, self.coding)


@dataclass(frozen=True, kw_only=True)
class RegulariserConfig:
    """How strongly a training holds the model near its base, and on which texts."""

    weight: NotNegative
    tokens: PlainTokens
    chats: Natural


@dataclass(frozen=True, kw_only=True)
class AlignmentConfig:
    """How arguments become training examples."""

    name: Literal["injection", "roleplay"]
    argument_epochs: Epochs | None
    validation_fraction: Part
    balance: bool
    positive_balance: bool
    shuffle_labels: bool
    regulariser: RegulariserConfig
    prompts: dict[str, Any]
    roleplay: dict[str, Any] | None = None


@dataclass(frozen=True, kw_only=True)
class BenchmarkConfig:
    """How the questionnaire is asked and read."""

    kind: Uncounted[Literal["questionnaire"]] = "questionnaire"
    name: Literal["portraits"]
    portraits: Uncounted[Place]
    reading: Literal["likelihood", "parse", "both"]
    max_tokens: Count
    limit: Annotated[int, Rule("a whole number of at least 10 (one portrait for each value)", lambda n: n >= 10)] | None
    choice: bool
    prompts: dict[str, Any]
