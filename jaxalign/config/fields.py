"""Types of single keys: their allowed values, in words for error lines, and whether a key is in a run's identity."""

import os
from datetime import datetime
from typing import Annotated, Literal, TypeVar

from jaxalign.config.schema import Rule, unescaped

Kind = TypeVar("Kind")

UNCOUNTED = "uncounted"

Uncounted = Annotated[Kind, UNCOUNTED]
"""A key that is not part of a run's identity: it changes no number, or it is a path whose content is in the identity
instead. Every other key is part of the identity (see `identity.identity`)."""

PATH = "path"

# Shells do not expand ~ after =.
# An empty path would be the current folder, and it is what `run.dir=$DIR` gives where DIR is not set.
Place = Annotated[str, PATH, Rule("a path", bool, os.path.expanduser)]
"""A path. On the command line, all characters of it belong to it (`overrides.CommandLine`); ~ is the home."""

Places = Annotated[
    tuple[str, ...],
    PATH,
    Rule("a list of paths that are not empty", all, lambda paths: tuple(map(os.path.expanduser, paths))),
]
"""A list of paths."""

Address = Annotated[str, PATH]
"""The address of a server. On the command line, all characters of it belong to it, as with a path."""

ProjectionName = Literal["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
Schedule = Literal["constant", "linear", "cosine"]
Precision = Literal["auto", "bfloat16", "float32"]
Attention = Literal["auto", "blocks", "splash", "tokamax"]
Storage = Literal["bfloat16", "int8", "int4"]
PromptFormat = Literal["plain", "chat"]


def whole(low: int, high: int, more: str = "") -> Rule:
    """Return the rule of a whole number in a range; `more` ends its words.

    Ranges stand where a larger number would fill the memory or never come to an end before anything is computed.
    """
    return Rule(f"a whole number from {low} to {high}{more}", lambda n: low <= n <= high)


def _is_date(text: str) -> bool:
    try:
        return datetime.strptime(text, "%Y-%m-%d").strftime("%Y-%m-%d") == text
    except ValueError:
        return False


Date = Annotated[str, Rule("a date as YYYY-MM-DD, such as 2026-01-31", _is_date)]
Count = Annotated[int, Rule("a whole number of at least 1", lambda n: n >= 1)]
Natural = Annotated[int, Rule("a whole number of at least 0", lambda n: n >= 0)]
Seed = Annotated[int, whole(0, 2**32 - 1)]
Samples = Annotated[int, whole(1, 100_000)]
QuestionCount = Annotated[int, whole(1, 100_000)]
Rounds = Annotated[int, whole(0, 1000)]
Rank = Annotated[int, whole(1, 65_536)]
TopK = Annotated[int, whole(0, 2**31 - 1, " (0 keeps all tokens)")]
MeshSize = Annotated[
    int, Rule("a whole number from 1 to 1,048,576, or -1 for the rest", lambda n: n == -1 or 1 <= n <= 2**20)
]
RowLength = Annotated[int, whole(1, 2**20)]
PlainTokens = Annotated[int, whole(16, 8192)]
Epochs = Annotated[float, Rule("a number greater than 0, up to 10000", lambda x: 0 < x <= 10_000)]
Limit = Annotated[int, Rule("a whole number of at least 2", lambda n: n >= 2)]
Positive = Annotated[float, Rule("a number greater than 0", lambda x: x > 0)]
NotNegative = Annotated[float, Rule("a number of at least 0", lambda x: x >= 0)]
Share = Annotated[float, Rule("a number of at least 0 and below 1", lambda x: 0 <= x < 1)]
PositiveShare = Annotated[float, Rule("a number above 0, and at most 1", lambda x: 0 < x <= 1)]
Part = Annotated[float, Rule("a number above 0 and below 1", lambda x: 0 < x < 1)]
Unit = Annotated[float, Rule("a number from 0 to 1", lambda x: 0 <= x <= 1)]
Betas = Annotated[
    tuple[float, float],
    Rule("two numbers of at least 0 and below 1, such as [0.9,0.999]", lambda pair: all(0 <= x < 1 for x in pair)),
]
TopP = Annotated[float, Rule("a number greater than 0, up to 1 (1 keeps all tokens)", lambda x: 0 < x <= 1)]
Stops = Annotated[tuple[str, ...], Rule("a list of strings that are not empty, such as ['Q:']", all, unescaped)]
Targets = Annotated[
    tuple[ProjectionName, ...],
    Rule("a list of one or more projections, none twice, such as [q_proj,v_proj]", lambda t: 0 < len(t) == len(set(t))),
]
