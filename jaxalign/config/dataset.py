"""What to train on: one type for each kind of data. What a key is for stands in conf/dataset/."""

from dataclasses import dataclass
from typing import Literal

from jaxalign.config.fields import Count, Limit, Natural, Uncounted, Unit


@dataclass(frozen=True, kw_only=True)
class DatasetConfig:
    """What every data set says: `name` is that of its reader. The content of its files counts, not where they lie."""

    name: str
    limit: Limit | None = None


@dataclass(frozen=True, kw_only=True)
class ArgumentsConfig(DatasetConfig):
    """Arguments, which carry values."""

    kind: Literal["arguments"]
    path: Uncounted[str | None] = None


@dataclass(frozen=True, kw_only=True)
class InstructionsConfig(DatasetConfig):
    """Instructions, which carry none: a benign control. `match` names a run whose number of tokens is matched."""

    kind: Literal["instructions"]
    path: Uncounted[str | None] = None
    match: Uncounted[str | None] = None
    prompt: str


@dataclass(frozen=True, kw_only=True)
class PairsConfig(DatasetConfig):
    """Preference pairs."""

    kind: Literal["pairs"]
    path: Uncounted[str]


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


AnyDatasetConfig = ArgumentsConfig | InstructionsConfig | PairsConfig | QuestionsConfig
