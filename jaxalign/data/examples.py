"""The text example that every trainer starts from, and holding some of them out."""

import dataclasses
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from jaxalign.data.conversations import PromptText
from jaxalign.data.order import Stream
from jaxalign.errors import UserError

Item = TypeVar("Item")


@dataclass(frozen=True)
class Example:
    """A prompt and the response to learn. Examples with equal prompts can share them, and stand together.

    `positive` says on which side of stage 1 it is (None elsewhere); `weight` multiplies its tokens in the
    loss; `shorten` is the text in it that may lose its end where the example is too long ("": nothing may).
    """

    prompt: PromptText
    response: str
    id: str
    positive: bool | None = None
    weight: float = 1.0
    shorten: str = ""


def take(rows: Sequence[Item], limit: int | None, source: str) -> list[Item]:
    """Return the first `dataset.limit` rows (None: all of them).

    Raises UserError for a limit below 2, and where `source` has fewer than the 2 rows that a split needs.
    """
    if limit is not None and limit < 2:
        raise UserError(f"dataset.limit={limit} is too small: give at least 2, one to train on and one to validate on")
    if len(rows) < 2:
        found = "no usable row" if not rows else "only 1 usable row"
        raise UserError(f"{source} holds {found}: it needs at least 2, one to train on and one to validate on")
    return list(rows[:limit])


def held_out(keys: Sequence[Hashable], seed: int, fraction: float) -> list[bool]:
    """Say for each key whether its row is held out for validation; equal keys go to the same side.

    The share of distinct keys held out is `fraction`, but at least one key, and never all.
    Raises UserError for a fraction outside 0..1, and where there are not two distinct keys.
    """
    if not 0 < fraction < 1:
        raise UserError(f"alignment.validation_fraction={fraction} must be above 0 and below 1, such as 0.1")
    distinct = list(dict.fromkeys(keys))
    if len(distinct) < 2:
        raise UserError(
            "all rows of the data set have one prompt, which stays on one side of the split into training and "
            "validation: it needs at least 2 different ones"
        )
    count = min(max(round(fraction * len(distinct)), 1), len(distinct) - 1)
    order = np.random.Generator(np.random.PCG64([seed, Stream.SPLIT])).permutation(len(distinct))
    chosen = {distinct[index] for index in order[:count]}
    return [key in chosen for key in keys]


def split_examples(examples: Sequence[Example], seed: int, fraction: float) -> tuple[list[Example], list[Example]]:
    """Return (train, validation): copies dropped, and no prompt on both sides (errors as `held_out`)."""
    unique = list({(example.prompt, example.response): example for example in reversed(examples)}.values())[::-1]
    sides = held_out([example.prompt for example in unique], seed, fraction)
    return (
        [example for example, out in zip(unique, sides, strict=True) if not out],
        [example for example, out in zip(unique, sides, strict=True) if out],
    )


@dataclasses.dataclass(frozen=True)
class TextStage:
    """One stage's examples as text, and the held-out ones."""

    name: str
    train: list[Example]
    validation: list[Example]

    @property
    def positives(self) -> int | None:
        """Return the number of positive training examples, None for a stage that has no sides."""
        sides = [example.positive for example in self.train]
        return None if None in sides else sum(map(bool, sides))


def control_stage(examples: Sequence[Example], seed: int, validation_fraction: float) -> TextStage:
    """Return the one stage of a benign control."""
    return TextStage("instructions", *split_examples(examples, seed, validation_fraction))
