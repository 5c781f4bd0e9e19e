"""Preference pairs: the responses, each stored once, and pairs of their numbers."""

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from jaxalign.data.conversations import PromptText
from jaxalign.data.datasets.pairs import PairText
from jaxalign.data.encoding import Encoder
from jaxalign.data.examples import held_out
from jaxalign.data.trees import Segment, Tokens, Tree
from jaxalign.errors import UserError


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


def encode_pairs(
    pairs: Sequence[PairText], encoder: Encoder, context: int, *, seed: int, fraction: float
) -> tuple[Responses, list[PreferencePair], list[PreferencePair]]:
    """Return preference pairs as tokens: the responses, the pairs to train on, and the pairs to validate on.

    Each prompt and each response to it is stored once; the reference of the responses is 0. The share `fraction` of
    the prompts is held out for validation. If a prompt and a response are longer than the context, the beginning of the
    prompt is cut off.

    Raises:
        UserError: a prompt alone is longer than the context, or a response leaves no room for a prompt (which).
    """
    texts: dict[PromptText, dict[str, None]] = {}
    for pair in pairs:
        texts.setdefault(pair.prompt, {}).update(dict.fromkeys((pair.chosen, pair.rejected)))
    encoded = {prompt: encoder.branches(prompt, list(theirs), end=True) for prompt, theirs in texts.items()}
    numbers: dict[PromptText, int] = {}
    prompts: list[Tokens] = []
    responses: list[Tokens] = []
    prompt_of: list[int] = []
    place: dict[tuple[int, str], int] = {}
    sides = held_out([pair.prompt for pair in pairs], seed, fraction)
    train, validation, longest = [], [], {}
    for pair, out in zip(pairs, sides, strict=True):
        if pair.prompt not in numbers:
            numbers[pair.prompt] = len(prompts)
            prompts.append(encoded[pair.prompt][0])
            if len(prompts[-1]) > context:
                raise UserError(
                    f"{pair.place}: its prompt takes {len(prompts[-1])} tokens, and the context holds {context}: "
                    "shorten it, or choose a model with a longer context"
                )
        prompt = numbers[pair.prompt]
        tokens = dict(zip(texts[pair.prompt], encoded[pair.prompt][1], strict=True))
        ends = []
        for text in (pair.chosen, pair.rejected):
            if (prompt, text) not in place:
                place[prompt, text] = len(responses)
                responses.append(tokens[text])
                prompt_of.append(prompt)
                longest[prompt] = max(longest.get(prompt, 0), len(responses[-1]))
                if len(responses[-1]) > context - 2:
                    size = len(responses[-1])
                    raise UserError(
                        f"{pair.place}: a response takes {size} tokens, and the context holds {context}, of which the "
                        "prompt needs 2: shorten it, leave the pair out, or choose a model with a longer context"
                    )
            ends.append(place[prompt, text])
        (validation if out else train).append(PreferencePair(*ends))
    cut = []
    for number, prompt in enumerate(prompts):
        room = context - longest[number]
        cut.append(len(prompt) > room)
        if cut[-1]:  # the first token, which may be the model's BOS, stays
            prompts[number] = np.concatenate([prompt[:1], prompt[len(prompt) - room + 1 :]])
    return Responses(prompts, responses, prompt_of, np.zeros(len(responses)), tuple(cut)), train, validation
