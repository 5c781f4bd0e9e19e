"""Requests for samples: what is asked, how it is drawn, and what comes back."""

import dataclasses
import hashlib
from collections.abc import Sequence

import jax
import numpy as np

from jaxalign.data.bucketing import bucket
from jaxalign.errors import UserError
from jaxalign.parallel.compilation import Programs


@dataclasses.dataclass(frozen=True)
class SamplingParams:
    """How samples are drawn.

    `temperature` 0 takes the most probable token each time; `top_k` 0 and `top_p` 1 keep all tokens. A sample ends
    with the model's end token, before the first of the strings in `stop` (one may go alone), or after `max_tokens`.
    """

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    max_tokens: int = 256
    stop: tuple[str, ...] = ()
    seed: int = 0

    def __post_init__(self):
        object.__setattr__(self, "stop", (self.stop,) if isinstance(self.stop, str) else tuple(self.stop))
        for name, wrong, rule in (
            ("temperature", not 0 <= self.temperature < float("inf"), "a number of at least 0 (0 is greedy)"),
            ("top_k", self.top_k < 0, "a whole number of at least 0 (0 keeps all tokens)"),
            ("top_p", not 0 < self.top_p <= 1, "a number greater than 0, up to 1 (1 keeps all tokens)"),
            ("max_tokens", self.max_tokens < 1, "a whole number of at least 1"),
            ("stop", not all(self.stop), "strings that are not empty"),
            ("seed", not 0 <= self.seed < 2**32, "a whole number from 0 to 4294967295"),
        ):
            if wrong:
                raise UserError(f"sampling.{name}={getattr(self, name)!r} will not do: give {rule}")


@dataclasses.dataclass(frozen=True)
class Request:
    """A prompt's tokens, which samples of it are wanted (by index), and which adapter answers."""

    prompt: np.ndarray
    samples: tuple[int, ...] = (0,)
    adapter: int = 0


@dataclasses.dataclass(frozen=True)
class Completion:
    """One sample: its tokens, the end token included where there is one; its text; why it ended.

    `end` is `eos`, `stop` (a stop string, which the text does not contain) or `length`.
    """

    index: int
    tokens: tuple[int, ...]
    text: str
    end: str


def check_requests(
    requests: Sequence[Request], sampling: SamplingParams, context: int, places: Sequence[str] | None = None
) -> None:
    """Raise UserError for the first prompt that is empty, or longer than the context less the new tokens.

    `places` say where the user finds each prompt; without them they are numbered.
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
                f"sampling.max_tokens={sampling.max_tokens}: shorten it, or lower sampling.max_tokens"
            )


def check_room(sampling: SamplingParams, context: int) -> None:
    """Raise UserError where the new tokens alone fill the context."""
    if sampling.max_tokens >= context:
        raise UserError(
            f"sampling.max_tokens={sampling.max_tokens} leaves no room for a prompt in the context of {context}: "
            f"give at most {context - 1}"
        )


def derive_keys(seed: jax.Array, words: jax.Array) -> jax.Array:
    """Return a random key for each row of words, uint32 [n, 3], as uint32 [n, 2]; `seed` is a uint32 scalar."""

    def fold(row):
        key = jax.random.key(seed)
        for word in row:
            key = jax.random.fold_in(key, word)
        return jax.random.key_data(key)

    return jax.vmap(fold)(words)


keys_program = jax.jit(derive_keys)


def sample_keys(requests: Sequence[Request], seed: int, programs: Programs) -> list[dict[int, np.ndarray]]:
    """Return for each request the random key of each of its samples, uint32 [2]."""
    words = []
    for request in requests:
        digest = hashlib.sha256(np.asarray(request.prompt, np.int32).tobytes()).digest()
        words += [(*np.frombuffer(digest[:8], np.uint32), index) for index in request.samples]
    padded = np.zeros((bucket(len(words)), 3), np.uint32)
    padded[: len(words)] = words
    arguments = (np.uint32(seed), padded)
    keys = iter(np.asarray(programs.get("sample keys", keys_program, (), arguments)(*arguments)))
    return [{index: next(keys) for index in request.samples} for request in requests]
