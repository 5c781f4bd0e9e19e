"""From text examples to tokens: the same function for training, sampling and scoring.

Each segment is encoded alone, without special tokens; a root begins with the model's BOS where it has one, a response
ends with its EOS. Responses are never cut: where an example is too long, the part that it names is shortened.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

from jaxalign.data.examples import Example
from jaxalign.data.trees import Tokens
from jaxalign.errors import UserError
from jaxalign.pretrained.tokenizer import Tokenizer


@dataclasses.dataclass(frozen=True)
class Encoder:
    """Puts prompts into the model's format: `plain` text, or one user turn of its `chat` template.

    `preamble` stands before every prompt.
    """

    tokenizer: Tokenizer
    prompt_format: str = "plain"
    system: str | None = None
    preamble: str = ""

    def render(self, prompt: str) -> str:
        """Return the prompt as the model reads it, BOS apart."""
        prompt = self.preamble + prompt
        if self.prompt_format == "plain":
            return prompt
        return self.tokenizer.chat([{"role": "user", "content": prompt.strip()}], system=self.system)

    def root(self, text: str) -> Tokens:
        """Return the tokens of a text that begins a tree, with one BOS if the model has one."""
        tokens = self.tokenizer.encode(text)
        bos = self.tokenizer.bos_id
        return tokens if bos is None else np.concatenate([[bos], tokens]).astype(np.int32)

    def prompt(self, text: str) -> Tokens:
        """Return the tokens of a prompt, rendered."""
        return self.root(self.render(text))

    def text(self, text: str) -> Tokens:
        """Return the tokens of a text inside a tree."""
        return self.tokenizer.encode(text)

    def response(self, text: str) -> Tokens:
        """Return the tokens of a response with its EOS."""
        return np.append(self.tokenizer.encode(text), self.tokenizer.eos_id).astype(np.int32)


@dataclasses.dataclass(frozen=True)
class Encoded:
    """Examples as tokens, index by index; `cut` says of each that came in, also of those left out, if it was cut."""

    prompts: list[Tokens]
    responses: list[Tokens]
    weights: list[float]
    cut: list[bool]

    def __len__(self) -> int:
        return len(self.prompts)

    def tokens(self, index: int) -> int:
        """Return the number of tokens of an example, its prompt included."""
        return len(self.prompts[index]) + len(self.responses[index])


def encode_examples(
    examples: Sequence[Example], encoder: Encoder, max_length: int, *, truncate: int | None = None
) -> Encoded:
    """Encode examples to at most `max_length` tokens each, prompt and response together.

    `truncate` brings back the released behaviour: everything after so many tokens is lost, the answer first. An
    example that keeps no token of its response is left out, and counts as cut.

    Raises:
        UserError: a prompt is longer than `max_length` even without the text that may be shortened.
    """
    encoded = Encoded([], [], [], [])
    for example in examples:
        prompt, response, cut = _fit(example, encoder, max_length)
        if truncate is not None and len(prompt) + len(response) > truncate:
            response, cut = response[: max(truncate - len(prompt), 0)], True
        encoded.cut.append(cut)
        if len(response):
            encoded.prompts.append(prompt)
            encoded.responses.append(response)
            encoded.weights.append(example.weight)
    return encoded


def _fit(example: Example, encoder: Encoder, max_length: int) -> tuple[Tokens, Tokens, bool]:
    prompt, response = encoder.prompt(example.prompt), encoder.response(example.response)
    over = len(prompt) + len(response) - max_length
    if over <= 0:
        return prompt, response, False
    text, kept = example.shorten, encoder.text(example.shorten) if example.shorten else np.zeros(0, np.int32)
    while over > 0 and len(kept):
        kept = kept[: max(len(kept) - over, 0)]
        # A cut inside a character of several tokens leaves a replacement character behind.
        short = encoder.tokenizer.decode(kept).rstrip("\N{REPLACEMENT CHARACTER}").rstrip()
        if text in example.prompt:
            prompt = encoder.prompt(example.prompt.replace(text, short))
        else:
            response = encoder.response(example.response.replace(text, short))
        over = len(prompt) + len(response) - max_length
    if over > 0:
        raise UserError(
            f"example {example.id}: its prompt and response take {max_length + over} tokens, and the context "
            f"holds {max_length}: shorten its prompt, or choose a model with a longer context"
        )
    return prompt, response, True
