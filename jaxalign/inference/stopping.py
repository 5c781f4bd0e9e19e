"""When a sample ends, and how much of its text may be shown before that is known."""

import dataclasses
from collections.abc import Callable, Sequence

from jaxalign.inference.sampling_params import Completion, SamplingParams

BROKEN = "\N{REPLACEMENT CHARACTER}"
"""The text that decoding returns for a character whose last bytes are missing."""

Decode = Callable[[Sequence[int]], str]
"""From tokens to their text."""


def find_stop(tokens: Sequence[int], new: int, stops: Sequence[str], decode: Decode) -> tuple[int, str] | None:
    """Look for a stop string in a sample's text.

    Args:
        tokens: the sample's tokens, without an end token.
        new: the number of tokens at the end that have not been looked at before.
        stops: the stop strings.
        decode: from tokens to their text.

    Returns:
        The smallest number of tokens whose text contains a stop string, and the text before that string; None if the
        text contains no stop string.
    """
    if not stops or not new:
        return None
    start = _first_to_look_at(tokens, len(tokens) - new, max(map(len, stops)), decode)
    tail = decode(tokens[start:])
    # A broken character may hide a stop string that the text of fewer tokens shows, because with byte fallback it also
    # breaks the bytes before it.
    if BROKEN not in tail and not any(stop in tail for stop in stops):
        return None
    for length in range(len(tokens) - new + 1, len(tokens) + 1):
        tail = decode(tokens[start:length])
        if any(stop in tail for stop in stops):
            text = decode(tokens[:length])
            found = [text.index(stop) for stop in stops if stop in text]
            if found:
                return length, text[: min(found)]
    return None


def _first_to_look_at(tokens: Sequence[int], seen: int, longest: int, decode: Decode) -> int:
    """Return the start of a text that ends before the token `seen` and is longer than the longest stop string, or 0.

    Broken characters do not count, because later tokens may join several of them to one. The text has one character
    more than the stop string, because its first token may be decoded differently without the tokens before it.
    """
    start, reach = seen, longest + 1
    while start > 0:
        start, reach = max(start - reach, 0), 2 * reach
        if len(decode(tokens[start:seen]).replace(BROKEN, "")) > longest:
            break
    return start


def showable(text: str, stops: Sequence[str]) -> str:
    """Return the part of a growing text that is sure to stay.

    A broken character at the end is left out, and so is an end that may become a stop string.

    >>> showable("All done. Q", ["Q:", "END"])
    'All done. '
    """
    text = text.rstrip(BROKEN)
    held = [size for stop in stops for size in range(1, len(stop)) if text.endswith(stop[:size])]
    return text[: len(text) - max(held, default=0)]


@dataclasses.dataclass(frozen=True)
class StoppingCriteria:
    """What ends a sample: an end token, a stop string, or its length."""

    sampling: SamplingParams
    """The sampling parameters. They have the stop strings and the largest length."""
    ends: tuple[int, ...]
    """The end tokens."""
    decode: Decode
    """From tokens to their text."""

    def completion(self, index: int, tokens: Sequence[int], new: int) -> Completion | None:
        """Return the completion of sample `index` if its newest tokens end it; None if it goes on.

        `tokens` are all tokens of the sample; the last `new` of them have not been looked at before.
        """
        end = "eos" if tokens[-1] in self.ends else "length" if len(tokens) == self.sampling.max_tokens else None
        said, unseen = (tokens[:-1], new - 1) if end == "eos" else (tokens, new)
        found = find_stop(said, unseen, self.sampling.stop, self.decode)
        if found is not None:
            length, text = found
            return Completion(index, tuple(tokens[:length]), text, "stop")
        return None if end is None else Completion(index, tuple(tokens), self.decode(said), end)

    def showable(self, tokens: Sequence[int]) -> str:
        """Return the part of a sample's text that is sure to stay (see the function `showable`)."""
        return showable(self.decode(tokens), self.sampling.stop)
