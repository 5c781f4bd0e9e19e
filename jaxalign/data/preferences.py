"""Preference pairs: the responses, each stored once, and pairs of their numbers."""

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from jaxalign.data.trees import Segment, Tokens, Tree


class PreferencePair(NamedTuple):
    """The numbers of two responses to one prompt: the preferred one, and the other."""

    chosen: int
    rejected: int


@dataclasses.dataclass(frozen=True)
class Responses:
    """Prompts, and responses to them, as tokens.

    prompt_of  for each response the number of its prompt
    reference  for each response its log-probability under the reference, in nats (see inference/reference.py)
    """

    prompts: list[Tokens]
    responses: list[Tokens]
    prompt_of: list[int]
    reference: Float[np.ndarray, " R"]
    cut: tuple[bool, ...] = ()
    """For each prompt whether its beginning was cut off; empty if none was cut."""

    def path(self, response: int) -> int:
        """Return the number of tokens of a response and its prompt together."""
        return len(self.prompts[self.prompt_of[response]]) + len(self.responses[response])

    def trees(self, members: Sequence[int]) -> list[tuple[Tree, list[int]]]:
        """Return a tree for each prompt of these responses, and the numbers of the responses that are its branches."""
        groups: dict[int, list[int]] = {}
        for response in members:
            groups.setdefault(self.prompt_of[response], []).append(response)
        return [
            ((Segment(self.prompts[prompt], -1), *(Segment(self.responses[r], 0, True) for r in mine)), mine)
            for prompt, mine in groups.items()
        ]
