"""The shapes of one call of the sampler, chosen before it runs, so that calls of many sizes use few programs."""

import dataclasses
from collections.abc import Sequence

import numpy as np
from jaxtyping import Int

from jaxalign.inference.sampling_params import Request

STEPS = 16
"""The number of tokens that each row chooses in one decode call; then the host looks for stop strings."""

WATCHED = 4
"""The number of tokens that each row chooses in one decode call if the text is shown while it grows."""

SAMPLES_TOGETHER = 16
"""The largest number of rows in a slot. Further samples of the prompt follow in the same rows."""

CROWDED = 4
"""The largest number of rows in a slot if there are more samples than rows. A slot takes its next prompt only after its
last sample has ended, so with few rows in a slot, a long sample keeps few rows waiting."""

FEWEST_ROWS = 4
"""The smallest number of rows that decode together, if `rows` allows it. A CPU needs the same time for fewer."""

FEWEST_PLACES = 64
"""The smallest number of KV cache places of a prompt. Sizes from here on are powers of two: a place costs little, and
each size is another program that decodes."""

NEAR = 512
"""The largest number of KV cache places that a slot's prompt has at the beginning. They cost little compared with the
weights. Only longer prompts add places, so one long prompt does not slow down the rows that decode before it."""

SHARED = 32
"""The smallest number of common first tokens for which a separate prefill is worth it."""


@dataclasses.dataclass(frozen=True)
class CallPlan:
    """The shapes of one call."""

    shape: tuple[int, int, int]
    """(A, S, N): the numbers of adapters (1 for the bare base), of slots for an adapter, and of rows in a slot."""
    steps: int
    """The largest number of tokens that a row chooses in one decode call."""
    prefix: int
    """The number of tokens with which all prompts begin, and which are prefilled once; 0 if that is not worth it."""
    longest: int
    """The number of tokens of the longest prompt, without the prefix and without its last token."""
    prompt_places: int
    """The number of places for the keys of a slot's prompt, at the beginning."""
    sample_places: int
    """The number of places for the keys of a row's sample, at the beginning."""


def plan_call(
    requests: Sequence[Request], adapters: int, rows: int, max_tokens: int, *, watched: bool = False
) -> CallPlan:
    """Return the shapes for these requests.

    Args:
        requests: at least one.
        adapters: the number of adapters in the stack; 1 for the bare base.
        rows: the largest number of rows that decode together, over all adapters; each adapter gets at least one.
        max_tokens: the largest number of new tokens of a sample.
        watched: whether the text is shown while it grows.
    """
    prefix = shared_prefix([request.prompt for request in requests])
    longest = max(len(request.prompt) for request in requests) - 1 - prefix
    ring = STEPS
    while ring < min(4 * STEPS, max_tokens):
        ring *= 2
    return CallPlan(
        shape=_slots(requests, adapters, rows),
        steps=WATCHED if watched else STEPS,
        prefix=prefix,
        longest=longest,
        prompt_places=min(places(longest), NEAR),
        sample_places=ring,
    )


def places(tokens: int) -> int:
    """Return the number of KV cache places for a prompt of so many tokens: a power of two."""
    return max(1 << (tokens - 1).bit_length(), FEWEST_PLACES)


def _slots(requests: Sequence[Request], adapters: int, rows: int) -> tuple[int, int, int]:
    """Return the plan's `shape`, (A, S, N)."""
    each = max(rows // adapters, 1)  # rows of an adapter
    group = min(SAMPLES_TOGETHER, each, max(len(request.samples) for request in requests)) or 1
    wanted = [[len(request.samples) for request in requests if request.adapter == a] for a in range(adapters)]
    if max(map(sum, wanted)) > each:
        group = min(group, CROWDED)
    fewest = -(-min(FEWEST_ROWS, rows) // adapters)
    if len(requests) == 1:
        group = max(group, fewest)
    most = max(sum(-(-samples // group) for samples in mine) for mine in wanted)
    slots = 1 << (max(most, -(-fewest // group)) - 1).bit_length()  # a power of two: few shapes
    return adapters, min(slots, max(each // group, 1)), group


def shared_prefix(prompts: Sequence[Int[np.ndarray, " _"]]) -> int:
    """Return the number of tokens with which all prompts begin, not counting the last token of any prompt.

    There must be at least one prompt. Return 0 if the number is less than `SHARED`, or if all prompts are the same.
    """
    length = min(len(prompt) for prompt in prompts) - 1
    first = prompts[0][:length]
    for prompt in prompts[1:]:
        differs = np.flatnonzero(first != prompt[: len(first)])
        first = first[: differs[0]] if len(differs) else first
    distinct = {prompt.tobytes() for prompt in prompts}
    return len(first) if len(distinct) > 1 and len(first) >= SHARED else 0
