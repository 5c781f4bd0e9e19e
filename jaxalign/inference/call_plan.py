"""The shapes of one call of the sampler, chosen before anything runs, so that calls of many sizes use few programs."""

import dataclasses
from collections.abc import Sequence

import numpy as np
from jaxtyping import Int

from jaxalign.data.bucketing import bucket
from jaxalign.inference.sampling_params import Request

STEPS = 16
"""Tokens that every row chooses in one decode call, before the host looks for stops."""

WATCHED = 4
"""Tokens of one decode call where somebody reads the text as it grows."""

GROUP = 16
"""Rows of a slot at most; a prompt's further samples follow in the same rows."""

CROWDED = 4
"""Rows of a slot at most where more samples wait than there are rows. A slot takes the next prompt only when its last
sample has ended, so in a slot of few rows a long sample makes few others wait."""

FEWEST_ROWS = 4
"""Rows that decode together at least, if so many are allowed: a CPU takes no less time for fewer."""

NEAR = 512
"""Places of a slot's prompt in the KV cache that cost next to nothing beside the weights. Only longer prompts get more,
so that one long prompt does not make the rows of all others attend over its length."""

SHARED = 32
"""Tokens that all prompts must begin with, at least, to be prefilled only once."""


@dataclasses.dataclass(frozen=True)
class CallPlan:
    """The shapes of one call."""

    shape: tuple[int, int, int]
    """(A, S, N): adapters of the stack (1 for the bare base), slots of an adapter, rows of a slot."""
    steps: int
    """Tokens that every row chooses in one decode call, at most."""
    prefix: int
    """Tokens that all prompts begin with and that are prefilled once; 0 if that is not worth it."""
    longest: int
    """Tokens of the longest prompt behind the prefix, without its last token."""
    prompt_places: int
    """Places for the keys of a slot's prompt, at first."""
    sample_places: int
    """Places for the keys of a row's sample, at first."""


def plan_call(
    requests: Sequence[Request], adapters: int, rows: int, max_tokens: int, *, watched: bool = False
) -> CallPlan:
    """Return the shapes for these requests.

    Args:
        requests: at least one.
        adapters: how many the stack has; 1 for the bare base.
        rows: how many rows decode together at most, over all adapters; but each adapter has at least one.
        max_tokens: new tokens of a sample at most.
        watched: whether somebody reads the text as it grows.
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
        prompt_places=min(bucket(longest), NEAR),
        sample_places=ring,
    )


def _slots(requests: Sequence[Request], adapters: int, rows: int) -> tuple[int, int, int]:
    """Return (A, S, N)."""
    each = max(rows // adapters, 1)  # rows of an adapter
    group = min(GROUP, each, max(len(request.samples) for request in requests)) or 1
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
    """Return how many tokens all prompts (at least one) begin with, the last token of each left out.

    Return 0 if they are fewer than `SHARED`, or if all prompts are the same.
    """
    length = min(len(prompt) for prompt in prompts) - 1
    first = prompts[0][:length]
    for prompt in prompts[1:]:
        differs = np.flatnonzero(first != prompt[: len(first)])
        first = first[: differs[0]] if len(differs) else first
    distinct = {prompt.tobytes() for prompt in prompts}
    return len(first) if len(distinct) > 1 and len(first) >= SHARED else 0
