"""From text to tokens and back. No special token is added to a text."""

import contextlib
import dataclasses
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int32

from jaxalign.errors import UserError
from jaxalign.pretrained.chat_template import DATE, ChatTemplate
from jaxalign.pretrained.gguf_tokenizer import CONTROL, NORMAL, from_gguf
from jaxalign.pretrained.tokenizer_files import check_tokenizer_files
from jaxalign.runs.records import read_json_object

# Without this, transformers warns that PyTorch is missing, which this program does not need.
os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")
# And about settings of a config.json that are checked here, and refused in one line.
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")

_MARK = "jaxalign-mark"
"""A text that no template writes by itself; where it comes out shows where a message goes."""


@contextlib.contextmanager
def _one_line(what: str, hint: str = "") -> Iterator[None]:
    """Turn what the package `tokenizers` raises into a UserError that begins with `what`. Its panics, such as for a
    regular expression that backtracks too often, are no `Exception`."""
    try:
        yield
    except BaseException as error:
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        raise UserError(f"{what}: {reason}{hint}") from error


def _encoding(backend: Any, text: str, *, special: bool) -> Any:
    with _one_line(f"the model's tokenizer cannot read a text of {len(text):,} characters"):
        return backend.encode(text, add_special_tokens=special)


class Turn(NamedTuple):
    """What stands around an answer.

    lead   white space before the answer
    close  the text behind it, up to the end token that the template writes; "" if the template writes none
    eos    whether the EOS follows, because `close` has no end token
    """

    lead: str = ""
    close: str = ""
    eos: bool = True


@dataclass(frozen=True, eq=False)
class Tokenizer:
    """A Hugging Face tokenizer, and the ids of its special tokens.

    bos_id   the token before each text; None if the tokenizer itself does not add it
    eos_id   the token behind each text
    pad_id   the padding token, or the EOS if there is none
    end_ids  all tokens that end an answer: many chat models end a turn with another token than a text
    date     the date for a chat template that asks for it, as YYYY-MM-DD
    """

    hf: Any
    bos_id: int | None
    eos_id: int
    pad_id: int
    end_ids: tuple[int, ...]
    date: str = DATE

    def encode(self, text: str) -> Int32[np.ndarray, " T"]:
        """Return the ids [T] of a text. No token is added; special tokens that are spelled out in it are recognised.

        Raises:
            UserError: the tokenizer fails at this text.
        """
        return np.array(_encoding(self.hf.backend_tokenizer, text, special=False).ids, np.int32)

    def encode_with_special(self, text: str) -> Int32[np.ndarray, " T"]:
        """Return the ids [T] of a text with the special tokens that the tokenizer itself adds; errors as `encode`."""
        return np.array(_encoding(self.hf.backend_tokenizer, text, special=True).ids, np.int32)

    def encode_cut(self, text: str, at: int) -> tuple[Int32[np.ndarray, " n"], Int32[np.ndarray, " m"]]:
        """Return the ids of a whole text in two parts: those that end before character `at`, and those behind them.

        A token that stands on both sides of the cut is in the second part. Texts that are encoded one by one may have
        other tokens than the whole: SentencePiece puts a space before each (Llama 2, Mistral), and merges are lost.
        Errors as `encode`.
        """
        found = _encoding(self.hf.backend_tokenizer, text, special=False)
        ids = np.array(found.ids, np.int32)
        count = next((place for place, (_, end) in enumerate(found.offsets) if end > at), len(ids))
        return ids[:count], ids[count:]

    def decode(self, ids: Sequence[int] | np.ndarray) -> str:
        """Return the text of ids [T], with special tokens spelled out."""
        return self.hf.decode(
            np.asarray(ids, np.int64).tolist(), skip_special_tokens=False, clean_up_tokenization_spaces=False
        )

    @property
    def _template_source(self) -> str | None:
        source = self.hf.chat_template
        return source.get("default") if isinstance(source, Mapping) else source

    @property
    def has_template(self) -> bool:
        """Whether the model has a chat template."""
        return bool(self._template_source)

    @property
    def prompt_format(self) -> str:
        """The prompt format of a model for which none is chosen: chat if it has a chat template, else plain."""
        return "chat" if self.has_template else "plain"

    @cached_property
    def template(self) -> ChatTemplate:
        """The chat template; UserError if the model has none."""
        source = self._template_source
        if not source:
            raise UserError("this model has no chat template; use model.prompt_format=plain")
        return ChatTemplate(source, self.hf.special_tokens_map, self.date)

    def chat(self, messages: Sequence[Mapping[str, str]], system: str | None = None) -> str:
        """Return messages in the model's chat template, up to the start of the assistant's answer.

        If the template refuses a system message or passes over it, the message becomes the beginning of the first user
        message.

        Raises:
            UserError: the model has no chat template, the template refuses the messages, or it does not show a message
                of the user or the system.
        """
        return self._render(messages, system, answering=True)

    def continued(self, messages: Sequence[Mapping[str, str]]) -> str:
        """Return messages in the chat template up to the end of the last one, which goes on; errors as `chat`."""
        last = {**messages[-1], "content": messages[-1]["content"] + _MARK}
        return self._render([*messages[:-1], last], None, answering=False).rpartition(_MARK)[0]

    @cached_property
    def turn(self) -> Turn:
        """What the chat template writes around an assistant's answer.

        Raises:
            UserError: the model has no chat template, or the template does not show an answer.
        """
        asked = [{"role": "user", "content": "?"}]
        text = self._render([*asked, {"role": "assistant", "content": _MARK}], None, answering=False)
        before, found, after = text.rpartition(_MARK)
        if not found:
            raise UserError("the model's chat template does not show an assistant's answer: use another model")
        lead = before.removeprefix(self.chat(asked))
        ends = {*self.end_ids, *(token for token, added in self.hf.added_tokens_decoder.items() if added.special)}
        end = next((token for token in self.encode(after).tolist() if token in ends), None)
        lead = lead if lead != before and lead.isspace() else ""
        if end is None:
            return Turn(lead)
        behind, spelled, _ = after.partition(self.decode([end]))
        return Turn(lead, behind + spelled, eos=False)

    def _render(self, messages: Sequence[Mapping[str, str]], system: str | None, *, answering: bool) -> str:
        turns = [dict(message) for message in messages]
        if system is None and turns and turns[0]["role"] == "system":
            system, turns = turns[0]["content"], turns[1:]
        if system:
            turns = self._with_system(system, turns)
        text = self.template.render(turns, answering=answering)
        for number, turn in enumerate(turns, start=1):
            # Of an assistant's earlier answers, templates leave out what it thought.
            if turn["role"] != "assistant" and turn["content"].strip() not in text:
                raise UserError(
                    f"the model's chat template does not show message {number}, of the {turn['role']}: leave it out, "
                    "or use model.prompt_format=plain"
                )
        return text

    def _with_system(self, system: str, turns: list[dict[str, str]]) -> list[dict[str, str]]:
        """Return the messages with a system message where the template shows it."""
        try:
            if _MARK in self.template.render([{"role": "system", "content": _MARK}, *turns], answering=True):
                return [{"role": "system", "content": system}, *turns]
        except UserError:
            if not turns:
                raise
        user = next((place for place, turn in enumerate(turns) if turn["role"] == "user"), None)
        if user is None:
            raise UserError("the model's chat template does not show a system message: leave it out")
        opened = turns[user] | {"content": f"{system}\n\n{turns[user]['content']}"}
        return [*turns[:user], opened, *turns[user + 1 :]]


def from_hf(hf: Any, end_ids: Sequence[int] = ()) -> Tokenizer:
    """Return a `Tokenizer` of a fast Hugging Face tokenizer, whose own truncation and padding are switched off.

    So is its dropout of merges (Provilkov et al., 2020, arXiv 1910.13267), which would give a text other tokens each
    time.

    `end_ids` are further tokens that end an answer, besides the EOS and the token with which the chat template ends an
    assistant's turn.

    Raises:
        UserError: the tokenizer has no EOS, is not based on the package `tokenizers`, or fails at a text of one letter.
    """
    backend = getattr(hf, "backend_tokenizer", None)
    if backend is None:
        raise UserError(f"the tokenizer ({type(hf).__name__}) has no tokenizer.json; save it with one")
    if hf.eos_token_id is None:
        raise UserError("the tokenizer names no eos_token, so no answer could end; add it to tokenizer_config.json")
    backend.no_truncation()
    backend.no_padding()
    if getattr(backend.model, "dropout", None):
        backend.model.dropout = None
    prepends = hf.bos_token_id is not None and _encoding(backend, "a", special=True).ids[:1] == [hf.bos_token_id]
    pad_id = hf.eos_token_id if hf.pad_token_id is None else hf.pad_token_id
    ends = tuple(dict.fromkeys([hf.eos_token_id, *end_ids]))
    found = Tokenizer(hf, hf.bos_token_id if prepends else None, hf.eos_token_id, pad_id, ends)
    try:
        close = found.turn.close
    except UserError:  # a chat says so; a plain text needs no template
        return found
    return dataclasses.replace(found, end_ids=tuple(dict.fromkeys([*ends, *found.encode(close)[-1:].tolist()])))


def from_folder(path: str | Path) -> Tokenizer:
    """Return the tokenizer of a model folder. No code from the folder is run.

    Raises:
        UserError: there is no tokenizer, or it cannot be loaded (it is damaged, or needs a package that is missing).
    """
    from transformers import AutoTokenizer

    path = Path(path)
    names = ("tokenizer.json", "tokenizer.model", "tokenizer_config.json", "vocab.json")
    if not any((path / name).is_file() for name in names):
        raise UserError(f"{path} has no tokenizer (tokenizer.json or tokenizer.model); copy it beside the weights")
    check_tokenizer_files(path)
    hint = ""
    if not (path / "tokenizer.json").is_file():
        hint = " (a tokenizer.model alone needs `pip install sentencepiece protobuf`; a tokenizer.json does not)"
    with _one_line(f"the tokenizer in {path} cannot be loaded", hint):
        hf = AutoTokenizer.from_pretrained(path, use_fast=True, trust_remote_code=False, local_files_only=True)
    return from_hf(hf, [*_named_ends(path / "generation_config.json"), *_named_ends(path / "config.json")])


def _named_ends(path: Path) -> list[int]:
    """Return the end tokens that a JSON file of a model names; none if there is no such file."""
    if not path.is_file():
        return []
    named = read_json_object(path, "get the model again").get("eos_token_id")
    ends = [] if named is None else named if isinstance(named, list) else [named]
    if not all(type(token) is int and token >= 0 for token in ends):
        raise UserError(f"{path} has eos_token_id={named!r:.60}: it must be a token's number, or a list of them")
    return ends


_TINY_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def tiny_tokenizer() -> Tokenizer:
    """Return a tokenizer of 259 tokens: three special ones, and the 256 bytes. It adds no BOS.

    >>> tiny_tokenizer().decode(tiny_tokenizer().encode("Is it 4? <|im_end|>"))
    'Is it 4? <|im_end|>'
    """
    from tokenizers import pre_tokenizers

    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    tokens = special + sorted(pre_tokenizers.ByteLevel.alphabet())
    fields = {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.merges": [],
        "tokenizer.ggml.token_type": [CONTROL] * len(special) + [NORMAL] * (len(tokens) - len(special)),
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
        "tokenizer.ggml.padding_token_id": 0,
        "tokenizer.ggml.add_bos_token": False,
        "tokenizer.chat_template": _TINY_TEMPLATE,
    }
    return from_hf(from_gguf(fields, "tiny"))
