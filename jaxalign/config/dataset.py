"""What to train on."""

from dataclasses import dataclass
from typing import Annotated, Literal

from jaxalign.config.fields import Count, Natural
from jaxalign.config.schema import Rule
from jaxalign.errors import UserError


@dataclass(frozen=True)
class DatasetConfig:
    """What to train on: arguments, instructions, pairs or questions. What a key is for stands in conf/dataset/."""

    name: str
    kind: Literal["arguments", "instructions", "pairs", "questions"]
    path: str | None = None
    limit: Annotated[int, Rule("a whole number of at least 2", lambda n: n >= 2)] | None = None
    match: str | None = None
    prompt: str | None = None
    skip: bool = False
    reply: str = "({letter})"
    examples: tuple[dict, ...] = ()
    solved: Natural = 0
    train: Count | None = None
    validation: Count | None = None
    test: Count | None = None
    links: tuple[int, ...] = ()
    turned: Annotated[float, Rule("a number from 0 to 1", lambda x: 0 <= x <= 1)] = 0.0

    def __post_init__(self):
        if self.kind == "instructions" and self.prompt is None:
            raise UserError(f"missing: dataset.prompt (dataset={self.name} holds instructions)")
        if self.kind == "pairs" and self.path is None:
            raise UserError("missing: dataset.path (dataset=pairs needs it: a file of prompt, chosen and rejected)")
        if self.kind == "arguments" and self.match is not None:
            raise UserError(f"dataset.match is for instructions; dataset={self.name} holds arguments: leave it out")
