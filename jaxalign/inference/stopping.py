"""When a sample ends, and how much of its text may be shown before that is known."""

import dataclasses
from collections.abc import Callable, Sequence

from jaxalign.inference.sampling_params import Completion, SamplingParams

BROKEN = "\N{REPLACEMENT CHARACTER}"
"""What decoding makes of a character whose last bytes are not there yet."""

Decode = Callable[[Sequence[int]], str]


def find_stop(tokens: Sequence[int], new: int, stops: Sequence[str], decode: Decode) -> tuple[int, str] | None:
    """Return (tokens, text) of a sample that has reached a stop string: the fewest of its tokens whose text contains
    one, and the text before it; None where it goes on.

    Only the last `new` tokens have not been looked at before. The end token does not belong to `tokens`: its text is no
    part of an answer.
    """
    if not stops or not new:
        return None
    start = _first_to_look_at(tokens, len(tokens) - new, max(map(len, stops)), decode)
    tail = decode(tokens[start:])
    # A broken character may hide what fewer tokens show: with byte fallback it breaks all bytes before it, too.
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
    """Return the place from which on the first `seen` tokens have more whole characters than a stop string.

    Broken ones do not count: what comes may join several of them. Nor does it matter, then, if the first token is
    decoded otherwise without those before it.
    """
    start, reach = seen, longest + 1
    while start > 0:
        start, reach = max(start - reach, 0), 2 * reach
        if len(decode(tokens[start:seen]).replace(BROKEN, "")) > longest:
            break
    return start


def showable(text: str, stops: Sequence[str]) -> str:
    """Return as much of a growing text as will surely stay: without a broken end, and without a suffix that may become
    a stop string.

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
    ends: tuple[int, ...]
    """The end tokens."""
    decode: Decode
    """From tokens to their text."""

    def completion(self, index: int, tokens: Sequence[int], new: int) -> Completion | None:
        """Return the completion of sample `index` if it ends within its newest tokens; None where it goes on.

        `tokens` are all of the sample, of which the last `new` have not been looked at before.
        """
        end = "eos" if tokens[-1] in self.ends else "length" if len(tokens) == self.sampling.max_tokens else None
        said, unseen = (tokens[:-1], new - 1) if end == "eos" else (tokens, new)
        found = find_stop(said, unseen, self.sampling.stop, self.decode)
        if found is not None:
            length, text = found
            return Completion(index, tuple(tokens[:length]), text, "stop")
        return None if end is None else Completion(index, tuple(tokens), self.decode(said), end)

    def showable(self, tokens: Sequence[int]) -> str:
        """Return as much of a sample's text as is sure to stay when it goes on (see `showable`)."""
        return showable(self.decode(tokens), self.sampling.stop)
