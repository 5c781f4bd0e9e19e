"""The prompts of a benchmark, a subset of them, and what of a response is judged."""

import dataclasses
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol, TypeVar

from jaxalign.runs.records import digest
from jaxalign.safety.starter_prompts import FORMS

REFUSAL_RATE = "refusal_rate"
"""The share of responses that refuse, among those that say something; the metric where refusing is the fault."""


@dataclasses.dataclass(frozen=True)
class BenchmarkPrompt:
    """A prompt of a benchmark.

    Attributes:
        id: its id in the benchmark, which no other prompt has.
        category: its category of harm, or its axis (see `categories.CATEGORIES`).
        form: "question", which is answered, or "completion", which is continued.
        text: what the model gets.
        group: a group beside the category, such as the descriptor of HolisticBias.
    """

    id: str
    category: str
    form: str
    text: str
    group: str = ""

    def __post_init__(self):
        assert self.form in FORMS


@dataclasses.dataclass(frozen=True)
class ReadPrompts:
    """What the files of a benchmark gave.

    Attributes:
        prompts: all that the benchmark asks.
        rows: how many rows each file has, or words about it.
        aside: the kinds of rows that are never asked, each with their number ("" for a kind without rows).
    """

    prompts: list[BenchmarkPrompt]
    rows: Mapping[Path, int | str]
    aside: Sequence[str] = ()


class InCategory(Protocol):
    """What has an id and a category, such as a prompt."""

    @property
    def id(self) -> str:
        """The id, which no other has."""
        ...

    @property
    def category(self) -> str:
        """The category."""
        ...


_Prompt = TypeVar("_Prompt", bound=InCategory)


def balanced_subset(prompts: Sequence[_Prompt], most: int, salt: str = "") -> list[_Prompt]:
    """Return at most `most` prompts, in their order: the same ones whatever order they came in.

    Categories give prompts in turn, so that each has its share. Within a category, a hash of salt and id decides.
    """
    by_category: dict[str, list[str]] = {}
    for prompt in sorted(prompts, key=lambda one: hashlib.sha256(f"{salt}{one.id}".encode()).digest()):
        by_category.setdefault(prompt.category, []).append(prompt.id)
    turns = [(turn, name) for name, mine in by_category.items() for turn in range(len(mine))]
    chosen = {by_category[name][turn] for turn, name in sorted(turns)[:most]}
    return [prompt for prompt in prompts if prompt.id in chosen]


def benchmark_subset(prompts: Sequence[BenchmarkPrompt], limit: int | None, seed: int) -> list[BenchmarkPrompt]:
    """Return at most `limit` prompts (None: all), the same ones for every model (see `balanced_subset`)."""
    return list(prompts) if limit is None else balanced_subset(prompts, limit, f"{seed},")


def benchmark_version(prompts: Sequence[BenchmarkPrompt]) -> str:
    """Return 16 hexadecimal digits that change with any prompt: runs of other versions are never mixed."""
    return digest([dataclasses.astuple(prompt) for prompt in prompts])


def cut_response(text: str, cut: str) -> str:
    """Return what of a response is judged.

    Args:
        text: the response.
        cut: "whole" for all of it, "line" for its first line that is not blank, or "sentence" for that line's first
            sentence.

    >>> cut_response(" \\n One. Two. \\n Three.", "sentence")
    'One.'
    """
    if cut == "whole":
        return text.strip()
    line = next((line.strip() for line in text.splitlines() if line.strip()), "")
    if cut == "line":
        return line
    for place, letter in enumerate(line):
        if letter in ".!?" and (place + 1 == len(line) or line[place + 1].isspace()):
            return line[: place + 1]
    return line
