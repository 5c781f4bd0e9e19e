"""Preference pairs: responses, each stored once, and the pairs that compare them."""

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from jaxalign.data.trees import Segment, Tokens, Tree


class PreferencePair(NamedTuple):
    """Numbers of two responses to one prompt: the preferred one, and the one that it is preferred to."""

    chosen: int
    rejected: int


@dataclasses.dataclass(frozen=True)
class Responses:
    """Prompts and responses as tokens; `prompt_of[r]` is the number of response r's prompt, and
    `reference[r]` its log-probability under the reference (see inference/reference.py)."""

    prompts: list[Tokens]
    responses: list[Tokens]
    prompt_of: list[int]
    reference: Float[np.ndarray, " R"]
    cut: tuple[bool, ...] = ()
    """Of each prompt whether it lost its beginning; () where none did."""

    def path(self, response: int) -> int:
        """Return the tokens of a response with its prompt."""
        return len(self.prompts[self.prompt_of[response]]) + len(self.responses[response])

    def trees(self, members: Sequence[int]) -> list[tuple[Tree, list[int]]]:
        """Return a tree for each prompt among these responses, with the response that each of its branches is."""
        groups: dict[int, list[int]] = {}
        for response in members:
            groups.setdefault(self.prompt_of[response], []).append(response)
        return [
            ((Segment(self.prompts[prompt], -1), *(Segment(self.responses[r], 0, True) for r in mine)), mine)
            for prompt, mine in groups.items()
        ]
