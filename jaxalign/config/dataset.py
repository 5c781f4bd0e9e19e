"""What to train on: one type for each kind of data. The comments in conf/dataset/ say what the keys mean."""

from dataclasses import dataclass
from typing import Annotated, Literal

from jaxalign.config.fields import Limit, Place, QuestionCount, Uncounted, Unit, whole
from jaxalign.errors import UserError

FIELDS_BY_KIND = {
    "instructions": ("prompt", "response", "messages"),
    "pairs": ("prompt", "chosen", "rejected"),
    "arguments": ("id", "conclusion", "stance", "premise", "values"),
    "questions": ("id", "passage", "question", "options", "answer"),
}
"""The fields of each kind of data."""
MAY_BE_ABSENT = ("id", "messages", "passage")
"""Fields that not every file has."""


@dataclass(frozen=True, kw_only=True)
class ColumnsConfig:
    """The names that the user's own file has for the fields; None: the name of the field here."""

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
        """The names that the user gave, by field."""
        return {name: column for name, column in vars(self).items() if column is not None}


@dataclass(frozen=True, kw_only=True)
class DatasetConfig:
    """What every data set has. `name` is the name of its reader. The identity of a run has a hash of the data, so paths
    are not part of it."""

    name: str
    limit: Limit | None = None
    columns: ColumnsConfig = ColumnsConfig()
    kind: str

    def __post_init__(self):
        given, kind = self.columns.given, self.kind
        for name in given:
            if name not in FIELDS_BY_KIND[kind]:
                kinds = " or ".join(other for other, names in FIELDS_BY_KIND.items() if name in names)
                raise UserError(
                    f"dataset.columns.{name} is for dataset.kind={kinds}, and dataset.kind={kind} has "
                    f"{', '.join(FIELDS_BY_KIND[kind])}"
                )
        fields: dict[str, str] = {}
        for name in FIELDS_BY_KIND[kind]:
            column = str(given.get(name, name))
            other = fields.setdefault(column, name)
            if other != name and not {name, other} & set(MAY_BE_ABSENT):
                raise UserError(
                    f"{name} and {other} would both be the column {column}: give each its own with "
                    f"dataset.columns.{name}=COLUMN and dataset.columns.{other}=COLUMN"
                )


@dataclass(frozen=True, kw_only=True)
class ArgumentsConfig(DatasetConfig):
    """Arguments, which are labelled with values."""

    kind: Literal["arguments"]
    path: Uncounted[Place | None] = None


@dataclass(frozen=True, kw_only=True)
class InstructionsConfig(DatasetConfig):
    """Instructions, which are not labelled with values: a benign control.

    `match` names a finished run; the control then trains on the same number of tokens.
    """

    kind: Literal["instructions"]
    path: Uncounted[Place | None] = None
    match: Uncounted[Place | None] = None
    prompt: str | None = None


@dataclass(frozen=True, kw_only=True)
class PairsConfig(DatasetConfig):
    """Preference pairs."""

    kind: Literal["pairs"]
    path: Uncounted[Place | None] = None


@dataclass(frozen=True, kw_only=True)
class QuestionsConfig(DatasetConfig):
    """Multiple-choice questions from files, or made by the program.

    The identity of a run has a hash of the questions, so the keys that choose or make them are not part of it.
    """

    kind: Literal["questions"]
    limit: Uncounted[Limit | None] = None
    path: Uncounted[Place | None] = None
    skip: Uncounted[bool] = False
    reply: str = "({letter})"
    examples: tuple[dict, ...] = ()
    solved: Uncounted[Annotated[int, whole(0, 100_000)]] = 0
    train: Uncounted[QuestionCount | None] = None
    validation: Uncounted[QuestionCount | None] = None
    test: Uncounted[QuestionCount | None] = None
    links: Uncounted[tuple[int, ...]] = ()
    turned: Uncounted[Unit] = 0.0


AnyDatasetConfig = ArgumentsConfig | InstructionsConfig | PairsConfig | QuestionsConfig
