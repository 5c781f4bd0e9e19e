"""Examples of supervised training as text, and their split into training and validation."""

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
    """A prompt, and the response that is to be learnt.

    id        its name in error messages
    positive  whether it is a positive example of its stage; None if the stage does not tell them apart
    weight    the weight of its tokens in the loss
    shorten   the text in it whose end may be cut off if the example is too long; "" if nothing may
    """

    prompt: PromptText
    response: str
    id: str
    positive: bool | None = None
    weight: float = 1.0
    shorten: str = ""


def take(rows: Sequence[Item], limit: int | None, source: str) -> list[Item]:
    """Return the first `limit` rows (`dataset.limit`); None means all.

    Raises:
        UserError: the limit is below 2, or there are fewer than 2 rows. The message names `source`.
    """
    if limit is not None and limit < 2:
        raise UserError(f"dataset.limit={limit} is too small: give at least 2, one to train on and one to validate on")
    if len(rows) < 2:
        found = "no usable row" if not rows else "only 1 usable row"
        raise UserError(f"{source} holds {found}: it needs at least 2, one to train on and one to validate on")
    return list(rows[:limit])


def held_out(keys: Sequence[Hashable], seed: int, fraction: float) -> list[bool]:
    """Return for each key whether its row is held out for validation. Rows with equal keys stay together.

    The share `fraction` of the distinct keys is held out: at least one of them, and never all.

    Raises:
        UserError: the fraction is not between 0 and 1, or all keys are equal.
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
    """Return (training, validation) examples, without duplicates. No prompt is in both.

    Raises:
        UserError: see `held_out`.
    """
    unique = list({(example.prompt, example.response): example for example in reversed(examples)}.values())[::-1]
    sides = held_out([example.prompt for example in unique], seed, fraction)
    return (
        [example for example, out in zip(unique, sides, strict=True) if not out],
        [example for example, out in zip(unique, sides, strict=True) if out],
    )


@dataclasses.dataclass(frozen=True)
class TextStage:
    """The examples of one stage as text: those to train on, and those to validate on."""

    name: str
    train: list[Example]
    validation: list[Example]

    @property
    def positives(self) -> int | None:
        """The number of positive training examples; None for a stage that does not tell them apart."""
        sides = [example.positive for example in self.train]
        return None if None in sides else sum(map(bool, sides))


def control_stage(examples: Sequence[Example], seed: int, validation_fraction: float) -> TextStage:
    """Return the single stage of a training on instructions, the control experiment of Choi et al. (2025).

    Raises:
        UserError: see `held_out`.
    """
    return TextStage("instructions", *split_examples(examples, seed, validation_fraction))
