"""Sampling parameters, requests for samples, and the completions that come back."""

import dataclasses
from collections.abc import Sequence

import numpy as np
from jaxtyping import Int

from jaxalign.errors import UserError

ENDS = ("stop", "eos", "length")
"""How a whole sample ends: before a stop string, with an end token, or at `max_tokens`. A sample that a server ended in
another way, which its record names, is not whole."""


@dataclasses.dataclass(frozen=True)
class SamplingParams:
    """How samples are drawn, and when they end.

    Raises:
        UserError: a number is outside its range, or a stop string is empty.
    """

    temperature: float = 1.0
    """The logits are divided by this number, at least 0. With 0, the most probable token is taken each time."""
    top_k: int = 0
    """Draw only from this many most probable tokens; 0 means all."""
    top_p: float = 1.0
    """Draw only from the most probable tokens that together have this share of the probability; 1 means all."""
    max_tokens: int = 256
    """The largest number of tokens of a sample."""
    stop: Sequence[str] = ()
    """Strings before which a sample ends. You may give any sequence, or one string; it becomes a tuple."""
    seed: int = 0
    """The seed of all random numbers, from 0 to 4294967295."""

    def __post_init__(self):
        object.__setattr__(self, "stop", (self.stop,) if isinstance(self.stop, str) else tuple(self.stop))
        for name, wrong, rule in (
            ("temperature", not 0 <= self.temperature < float("inf"), "a number of at least 0 (0 is greedy)"),
            ("top_k", not 0 <= self.top_k < 2**31, "a whole number from 0 to 2147483647 (0 keeps all tokens)"),
            ("top_p", not 0 < self.top_p <= 1, "a number greater than 0, up to 1 (1 keeps all tokens)"),
            ("max_tokens", self.max_tokens < 1, "a whole number of at least 1"),
            ("stop", not all(self.stop), "strings that are not empty"),
            ("seed", not 0 <= self.seed < 2**32, "a whole number from 0 to 4294967295"),
        ):
            if wrong:
                raise UserError(f"sampling.{name}={getattr(self, name)!r} is not allowed: give {rule}")


@dataclasses.dataclass(frozen=True)
class Request:
    """A prompt, and the samples of it that are wanted."""

    prompt: Int[np.ndarray, " T"]
    """The prompt's tokens, at least one."""
    samples: tuple[int, ...] = (0,)
    """The index of each sample that is wanted. A sample of another index has other random numbers."""
    adapter: int = 0
    """The index of the adapter that answers."""


@dataclasses.dataclass(frozen=True)
class Completion:
    """One sample that has ended."""

    index: int
    """The sample's index, one of the request's `samples`."""
    tokens: tuple[int, ...]
    """Its tokens, with the end token if there is one, and up to the one that completes a stop string."""
    text: str
    """Its text, without an end token or a stop string."""
    end: str
    """Why it ended: one of `ENDS`, or for an answer that is not whole the word that a server has for it."""


def check_requests(
    requests: Sequence[Request], sampling: SamplingParams, context: int, places: Sequence[str] | None = None
) -> None:
    """Raise UserError for the first prompt that is empty, or longer than the context less the new tokens.

    Args:
        requests: the prompts.
        sampling: the sampling parameters.
        context: the number of tokens that the model can read.
        places: for each prompt the place where the user finds it, for the error; None numbers the prompts.
    """
    check_room(sampling, context)
    room = context - sampling.max_tokens
    for number, request in enumerate(requests):
        place = f"prompt {number + 1}" if places is None else places[number]
        if not len(request.prompt):
            raise UserError(f"{place} is empty")
        if len(request.prompt) > room:
            raise UserError(
                f"{place} has {len(request.prompt)} tokens, and the context of {context} holds {room} beside "
                f"max_tokens={sampling.max_tokens}: shorten it, or lower max_tokens"
            )


def check_room(sampling: SamplingParams, context: int) -> None:
    """Raise UserError if the new tokens alone fill the context."""
    if sampling.max_tokens >= context:
        raise UserError(
            f"max_tokens={sampling.max_tokens} leaves no room for a prompt in the context of {context}: "
            f"give at most {context - 1}"
        )
