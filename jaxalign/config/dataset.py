"""What to train on: one type for each kind of data. What a key is for stands in conf/dataset/."""

from dataclasses import dataclass
from typing import Literal

from jaxalign.config.fields import Count, Limit, Natural, Uncounted, Unit
from jaxalign.errors import UserError

FIELDS_BY_KIND = {
    "instructions": ("prompt", "response", "messages"),
    "pairs": ("prompt", "chosen", "rejected"),
    "arguments": ("id", "conclusion", "stance", "premise", "values"),
    "questions": ("id", "passage", "question", "options", "answer"),
}
"""The fields that are read of each kind of data."""


@dataclass(frozen=True, kw_only=True)
class ColumnsConfig:
    """What a file of the user's own calls the fields that are read from it; None: as they are called here."""

    id: str | None = None
    prompt: str | None = None
    response: str | None = None
    messages: str | None = None
    chosen: str | None = None
    rejected: str | None = None
    conclusion: str | None = None
    stance: str | None = None
    premise: str | None = None
    values: str | None = None
    passage: str | None = None
    question: str | None = None
    options: str | None = None
    answer: str | None = None

    @property
    def given(self) -> dict[str, str]:
        """The names that are given."""
        return {name: column for name, column in vars(self).items() if column is not None}


@dataclass(frozen=True, kw_only=True)
class DatasetConfig:
    """What every data set says: `name` is that of its reader. The content of its files counts, not where they lie."""

    name: str
    limit: Limit | None = None
    columns: ColumnsConfig = ColumnsConfig()

    def check_columns(self, kind: str) -> None:
        """Raise UserError for a column of another kind of data."""
        for name in self.columns.given:
            if name not in FIELDS_BY_KIND[kind]:
                kinds = " or ".join(other for other, names in FIELDS_BY_KIND.items() if name in names)
                raise UserError(
                    f"dataset.columns.{name} is for dataset.kind={kinds}, and dataset.kind={kind} has "
                    f"{', '.join(FIELDS_BY_KIND[kind])}"
                )


@dataclass(frozen=True, kw_only=True)
class ArgumentsConfig(DatasetConfig):
    """Arguments, which carry values."""

    kind: Literal["arguments"]
    path: Uncounted[str | None] = None

    def __post_init__(self):
        self.check_columns(self.kind)


@dataclass(frozen=True, kw_only=True)
class InstructionsConfig(DatasetConfig):
    """Instructions, which carry none: a benign control. `match` names a run whose number of tokens is matched."""

    kind: Literal["instructions"]
    path: Uncounted[str | None] = None
    match: Uncounted[str | None] = None
    prompt: str | None = None

    def __post_init__(self):
        self.check_columns(self.kind)


@dataclass(frozen=True, kw_only=True)
class PairsConfig(DatasetConfig):
    """Preference pairs."""

    kind: Literal["pairs"]
    path: Uncounted[str]

    def __post_init__(self):
        self.check_columns(self.kind)


@dataclass(frozen=True, kw_only=True)
class QuestionsConfig(DatasetConfig):
    """Multiple-choice questions, read or made. They count themselves, not the keys that choose or make them."""

    kind: Literal["questions"]
    limit: Uncounted[Limit | None] = None
    path: Uncounted[str | None] = None
    skip: Uncounted[bool] = False
    reply: str = "({letter})"
    examples: tuple[dict, ...] = ()
    solved: Uncounted[Natural] = 0
    train: Uncounted[Count | None] = None
    validation: Uncounted[Count | None] = None
    test: Uncounted[Count | None] = None
    links: Uncounted[tuple[int, ...]] = ()
    turned: Uncounted[Unit] = 0.0

    def __post_init__(self):
        self.check_columns(self.kind)


AnyDatasetConfig = ArgumentsConfig | InstructionsConfig | PairsConfig | QuestionsConfig
