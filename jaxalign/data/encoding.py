"""From text examples to tokens, in the same way for training, sampling and scoring.

Each segment is encoded alone, without special tokens. A root begins with the model's BOS token if it has one, and a
response ends with its EOS token. If an example is too long, only the text that it names (`Example.shorten`) is cut.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

from jaxalign.data.conversations import Message, PromptText
from jaxalign.data.examples import Example
from jaxalign.data.trees import Tokens
from jaxalign.errors import UserError
from jaxalign.pretrained.tokenizer import Tokenizer


@dataclasses.dataclass(frozen=True)
class Encoder:
    """Encodes texts, and puts prompts into the model's format: `plain`, or as the user's turn of a `chat`.

    `system` is the system message of a chat. `preamble` is a text before every prompt.
    """

    tokenizer: Tokenizer
    prompt_format: str = "plain"
    system: str | None = None
    preamble: str = ""

    def render(self, prompt: PromptText) -> str:
        """Return the text of a prompt in the model's format, without BOS.

        A conversation is put into the chat template as it is. If it has a system message, this replaces `system`.

        Raises:
            UserError: the prompt is a conversation, and the format is `plain`.
        """
        if not isinstance(prompt, str):
            return self._render_conversation(prompt)
        prompt = self.preamble + prompt
        if self.prompt_format == "plain":
            return prompt
        return self.tokenizer.chat([{"role": "user", "content": prompt.strip()}], system=self.system)

    def _render_conversation(self, messages: tuple[Message, ...]) -> str:
        if self.prompt_format == "plain":
            raise UserError(
                "the data are conversations, which need the model's chat template: add model.prompt_format=chat"
            )
        turns = [{"role": message.role, "content": message.content} for message in messages]
        return self.tokenizer.chat(turns, system=None if messages[0].role == "system" else self.system)

    def root(self, text: str) -> Tokens:
        """Return the tokens of a text that begins a tree, after a BOS if the model has one."""
        tokens = self.tokenizer.encode(text)
        bos = self.tokenizer.bos_id
        return tokens if bos is None else np.concatenate([[bos], tokens]).astype(np.int32)

    def prompt(self, text: PromptText) -> Tokens:
        """Return the tokens of a prompt, in the model's format and after a BOS if the model has one."""
        return self.root(self.render(text))

    def text(self, text: str) -> Tokens:
        """Return the tokens of a text inside a tree, without special tokens."""
        return self.tokenizer.encode(text)

    def response(self, text: str) -> Tokens:
        """Return the tokens of a response, and an EOS behind them."""
        return np.append(self.tokenizer.encode(text), self.tokenizer.eos_id).astype(np.int32)


@dataclasses.dataclass(frozen=True)
class Encoded:
    """Examples as tokens: the lists `prompts`, `responses` and `weights` have an entry for each.

    `cut` tells for each example before encoding, also for those that were left out, whether it was cut.
    """

    prompts: list[Tokens]
    responses: list[Tokens]
    weights: list[float]
    cut: list[bool]

    def __len__(self) -> int:
        return len(self.prompts)

    def tokens(self, index: int) -> int:
        """Return the number of tokens of an example: of its prompt and its response."""
        return len(self.prompts[index]) + len(self.responses[index])


def encode_examples(
    examples: Sequence[Example], encoder: Encoder, max_length: int, *, truncate: int | None = None
) -> Encoded:
    """Return examples as tokens, with at most `max_length` tokens each in prompt and response together.

    `truncate` behaves as the released code does: it cuts an example after so many tokens, so that the response loses
    its end. An example that keeps no token of its response is left out.

    Raises:
        UserError: an example is too long even without the text that may be shortened.
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
        # If the cut is inside a character of several tokens, the decoded text ends in a replacement character.
        short = encoder.tokenizer.decode(kept).rstrip("\N{REPLACEMENT CHARACTER}").rstrip()
        if isinstance(example.prompt, str) and text in example.prompt:
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
