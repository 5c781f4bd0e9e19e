"""From text examples to tokens, in the same way for training, sampling and scoring.

A prompt and what follows it have the tokens of the whole text, whatever the tokenizer's style. A root begins with the
model's BOS token if it has one, and a response ends with what the prompt format writes behind an answer. If an example
is too long, only the text that it names (`Example.shorten`) is cut.
"""

import dataclasses
from collections.abc import Iterable, Sequence

import numpy as np

from jaxalign.data.conversations import Message, PromptText
from jaxalign.data.examples import Example
from jaxalign.data.trees import Tokens, shared_length
from jaxalign.errors import UserError
from jaxalign.pretrained.tokenizer import Tokenizer, Turn
from jaxalign.runs.records import digest

_WORD = "a"
"""What stands for the answer in the question how the white space before it is encoded."""


@dataclasses.dataclass(frozen=True)
class Encoder:
    """Encodes texts, and puts prompts into the model's format: `plain`, or as the user's turn of a `chat`.

    `system` is the system message of a chat. `preamble` is a text before every prompt.
    """

    tokenizer: Tokenizer
    prompt_format: str = "plain"
    system: str | None = None
    preamble: str = ""

    @property
    def turn(self) -> Turn:
        """What stands around an answer: in a plain text only the EOS behind it; in a chat what the template writes."""
        return Turn() if self.prompt_format == "plain" else self.tokenizer.turn

    def render(self, prompt: PromptText) -> str:
        """Return the text of a prompt in the model's format; in a plain text without BOS.

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

    def rendered(self, prompts: Iterable[PromptText], *, answers: bool = True) -> dict[str, str]:
        """Return what the identity of a run must have beside the texts of its prompts.

        For a chat this is a hash of the prompts as the model sees them (the template, the date and the system message
        are in it), and of what stands around given `answers`. A plain text is seen as it is, so there is nothing.
        """
        if self.prompt_format == "plain":
            return {}
        return {"rendered": digest([[self.render(prompt) for prompt in prompts], self.turn if answers else None])}

    def root(self, text: str) -> Tokens:
        """Return the tokens of a text that begins a tree, after a BOS if the model has one."""
        return self._rooted(self.tokenizer.encode(text))

    def _rooted(self, tokens: Tokens) -> Tokens:
        """Return tokens after a BOS, unless the model has none, or a chat template has written it already."""
        bos = self.tokenizer.bos_id
        if bos is None or (len(tokens) and tokens[0] == bos):
            return tokens
        return np.concatenate([[bos], tokens]).astype(np.int32)

    def prompt(self, prompt: PromptText, after: str = "") -> Tokens:
        """Return the tokens of a prompt in the model's format, and of the beginning `after` of its answer.

        White space at the end is encoded as it is before a word, so that a sample continues the tokens that `branches`
        gives to a whole text: GPT-2 has one token for two newlines at the end of a text, and two for them before a
        word; and a space belongs to the word behind it.
        """
        text = self._beginning(prompt, after)
        if text[-1:].isspace():
            before, _ = self.tokenizer.encode_cut(text + _WORD, len(text))
            if len(before):
                return self._rooted(before)
        return self.root(text)

    def _beginning(self, prompt: PromptText, after: str) -> str:
        return self.render(prompt) + (self.turn.lead + after if after else "")

    def branches(
        self, prompt: PromptText, texts: Sequence[str], after: str = "", *, end: bool = False
    ) -> tuple[Tokens, list[Tokens]]:
        """Return the tokens of a prompt, and of each text that may follow it.

        The tokens of the prompt and of a text together are those of the whole. So a token that belongs to both is the
        text's; and what is not the same token with all texts is theirs. (If nothing of the prompt is left then, and
        the model has no BOS, prompt and texts are encoded apart, because something must predict their first tokens.)

        Args:
            prompt: the prompt, which is put into the model's format.
            texts: what may follow.
            after: the beginning of the answer, which all texts share.
            end: whether the texts end the answer, so that they get what the format writes behind it.
        """
        turn, start = self.turn, self._beginning(prompt, after)
        lead = "" if after else turn.lead
        whole = [f"{lead}{text}{turn.close if end else ''}" for text in texts]
        eos = [self.tokenizer.eos_id] if end and turn.eos else []
        parts = [self.tokenizer.encode_cut(start + text, len(start)) for text in whole]
        shared = shared_length([before for before, _ in parts]) if parts else 0
        trunk = self._rooted(parts[0][0][:shared]) if parts else self.prompt(prompt, after)
        if not len(trunk):
            trunk, shared = self.root(start), 0
            parts = [(trunk[:0], self.tokenizer.encode(text)) for text in whole]
        joined = [np.concatenate([before[shared:], behind, eos]).astype(np.int32) for before, behind in parts]
        return trunk, joined

    def text(self, text: str) -> Tokens:
        """Return the tokens of a text alone, without special tokens."""
        return self.tokenizer.encode(text)


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
        UserError: the prompt of an example is empty, or an example is too long even without the text that may be
            shortened.
    """
    encoded = Encoded([], [], [], [])
    for example in examples:
        prompt, response, cut = _fit(example, encoder, max_length)
        if not len(prompt):
            raise UserError(f"the prompt of example {example.id} is empty: there is nothing to answer")
        if truncate is not None and len(prompt) + len(response) > truncate:
            response, cut = response[: max(truncate - len(prompt), 0)], True
        encoded.cut.append(cut)
        if len(response):
            encoded.prompts.append(prompt)
            encoded.responses.append(response)
            encoded.weights.append(example.weight)
    return encoded


def _fit(example: Example, encoder: Encoder, max_length: int) -> tuple[Tokens, Tokens, bool]:
    prompt, response = _encode(example, encoder)
    over = len(prompt) + len(response) - max_length
    if over <= 0:
        return prompt, response, False
    text, kept = example.shorten, encoder.text(example.shorten) if example.shorten else np.zeros(0, np.int32)
    while over > 0 and len(kept):
        kept = kept[: max(len(kept) - over, 0)]
        # If the cut is inside a character of several tokens, the decoded text ends in a replacement character.
        short = encoder.tokenizer.decode(kept).rstrip("\N{REPLACEMENT CHARACTER}").rstrip()
        if isinstance(example.prompt, str) and text in example.prompt:
            shorter = dataclasses.replace(example, prompt=example.prompt.replace(text, short))
        else:
            shorter = dataclasses.replace(example, response=example.response.replace(text, short))
        prompt, response = _encode(shorter, encoder)
        over = len(prompt) + len(response) - max_length
    if over > 0:
        raise UserError(
            f"example {example.id}: its prompt and response take {max_length + over} tokens, and the context "
            f"holds {max_length}: shorten its prompt, or choose a model with a longer context"
        )
    return prompt, response, True


def _encode(example: Example, encoder: Encoder) -> tuple[Tokens, Tokens]:
    prompt, (response,) = encoder.branches(example.prompt, [example.response], end=True)
    return prompt, response
