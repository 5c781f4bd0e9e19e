"""From text to tokens and back. No special token is added to a text."""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int32

from jaxalign.errors import UserError
from jaxalign.pretrained.tokenizer_files import check_tokenizer_files

# Without this, transformers warns that PyTorch is missing, which this program does not need.
os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")


@dataclass(frozen=True, eq=False)
class Tokenizer:
    """A Hugging Face tokenizer, and the ids of its special tokens.

    bos_id   the token before each text; None if the tokenizer itself does not add it
    eos_id   the token behind each text
    pad_id   the padding token, or the EOS if there is none
    end_ids  all tokens that end an answer: many chat models end a turn with another token than a text

    Segments are encoded one by one. A byte-level tokenizer then gives the tokens of the whole text if each cut is
    before a space or after a newline. A SentencePiece tokenizer (Llama 2, Mistral) puts its space marker before every
    segment. That does no harm, because training, sampling and scoring cut texts in the same way.
    """

    hf: Any
    bos_id: int | None
    eos_id: int
    pad_id: int
    end_ids: tuple[int, ...]

    def encode(self, text: str) -> Int32[np.ndarray, " T"]:
        """Return the ids [T] of a text. No token is added; special tokens that are spelled out in it are recognised."""
        return np.array(self.hf.backend_tokenizer.encode(text, add_special_tokens=False).ids, np.int32)

    def decode(self, ids: Sequence[int] | np.ndarray) -> str:
        """Return the text of ids [T], with special tokens spelled out."""
        return self.hf.decode(
            np.asarray(ids, np.int64).tolist(), skip_special_tokens=False, clean_up_tokenization_spaces=False
        )

    def chat(self, messages: Sequence[Mapping[str, str]], system: str | None = None) -> str:
        """Return messages in the model's chat template, up to the start of the assistant's answer.

        A BOS at the beginning is left out if the root segment gets one anyway. If the template refuses a system
        message, the message becomes the beginning of the first user message.

        Raises:
            UserError: the model has no chat template, or the template refuses the messages.
        """
        from jinja2 import TemplateError

        if not self.hf.chat_template:
            raise UserError("this model has no chat template; use model.prompt_format=plain")
        turns = [dict(message) for message in messages]
        try:
            try:
                text = self._render([{"role": "system", "content": system}, *turns] if system else turns)
            except TemplateError:
                if not system or not turns:
                    raise
                first = turns[0] | {"content": f"{system}\n\n{turns[0]['content']}"}
                text = self._render([first, *turns[1:]])
        except TemplateError as error:
            raise UserError(f"the model's chat template refuses these messages: {error}") from error
        return text.removeprefix(self.hf.bos_token) if self.bos_id is not None else text

    def _render(self, turns: list[dict[str, str]]) -> str:
        return self.hf.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)


def from_hf(hf: Any, end_ids: Sequence[int] = ()) -> Tokenizer:
    """Return a `Tokenizer` of a fast Hugging Face tokenizer, whose own truncation and padding are switched off.

    `end_ids` are further tokens that end an answer, besides the EOS.

    Raises:
        UserError: the tokenizer has no EOS, or is not based on the package `tokenizers`.
    """
    backend = getattr(hf, "backend_tokenizer", None)
    if backend is None:
        raise UserError(f"the tokenizer ({type(hf).__name__}) has no tokenizer.json; save it with one")
    if hf.eos_token_id is None:
        raise UserError("the tokenizer names no eos_token, so no answer could end; add it to tokenizer_config.json")
    backend.no_truncation()
    backend.no_padding()
    prepends = hf.bos_token_id is not None and backend.encode("a").ids[:1] == [hf.bos_token_id]
    pad_id = hf.eos_token_id if hf.pad_token_id is None else hf.pad_token_id
    ends = tuple(dict.fromkeys([hf.eos_token_id, *end_ids]))
    return Tokenizer(hf, hf.bos_token_id if prepends else None, hf.eos_token_id, pad_id, ends)


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
    try:
        hf = AutoTokenizer.from_pretrained(path, use_fast=True, trust_remote_code=False, local_files_only=True)
    except (
        BaseException
    ) as error:  # for a damaged file, `tokenizers` raises bare Exception, and its panics are not even
        if isinstance(error, KeyboardInterrupt | SystemExit):
            raise
        reason = str(error).strip().splitlines() or [type(error).__name__]
        hint = ""
        if not (path / "tokenizer.json").is_file():
            hint = " (a tokenizer.model alone needs `pip install sentencepiece protobuf`; a tokenizer.json does not)"
        raise UserError(f"the tokenizer in {path} cannot be loaded: {reason[0]}{hint}") from error
    return from_hf(hf, _generation_ends(path / "generation_config.json"))


def _generation_ends(path: Path) -> list[int]:
    """Return the end tokens in a model's generation_config.json; none if there is no such file."""
    if not path.is_file():
        return []
    try:
        named = json.loads(path.read_text(encoding="utf-8")).get("eos_token_id")
    except (OSError, ValueError, AttributeError) as error:
        raise UserError(f"{path} cannot be read as JSON ({error}); get the model again") from error
    return [token for token in (named if isinstance(named, list) else [named]) if isinstance(token, int)]


_NORMAL, _CONTROL, _USER_DEFINED = 1, 3, 4
"""Types of tokens in `tokenizer.ggml.token_type`."""

_WORDS = {
    "default": None,
    "gpt-2": None,
    "smollm": None,
    "llama-bpe": r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+",
    "qwen2": r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+",
}
"""The pattern with which each `tokenizer.ggml.pre` splits a text into words; None for GPT-2's (in `tokenizers`)."""


def from_gguf(fields: Mapping[str, Any], path: str | Path) -> Any:
    """Return a `PreTrainedTokenizerFast`, built from the metadata of the GGUF file at `path`.

    Raises:
        UserError: it is not a byte-level BPE tokenizer, or splits words in a way that is not in `_WORDS`.
    """
    from tokenizers import AddedToken, decoders, models, normalizers, processors
    from tokenizers import Tokenizer as Backend
    from transformers import PreTrainedTokenizerFast

    kind, cut = fields.get("tokenizer.ggml.model"), fields.get("tokenizer.ggml.pre", "default")
    if kind != "gpt2" or cut not in _WORDS:
        raise UserError(
            f"{path} holds a tokenizer of kind '{kind}' ('{cut}'); supported in GGUF is gpt2 (byte-level BPE) with "
            f"{', '.join(_WORDS)}: give the model's folder with safetensors and tokenizer.json instead"
        )
    tokens = fields.get("tokenizer.ggml.tokens", [])
    merges = [tuple(merge.split(" ")) for merge in fields.get("tokenizer.ggml.merges", [])]
    vocabulary = {token: index for index, token in enumerate(tokens)}
    try:
        # Llama 3 applies no merges to a word that is itself a token.
        backend = Backend(models.BPE(vocabulary, merges, ignore_merges=cut == "llama-bpe"))
    except Exception as error:  # `tokenizers` raises bare Exception
        raise UserError(f"{path}: its tokenizer cannot be built ({error}); get the file again") from error
    backend.pre_tokenizer = _words(cut)
    backend.decoder = decoders.ByteLevel()
    if cut == "qwen2":
        backend.normalizer = normalizers.NFC()
    kinds = fields.get("tokenizer.ggml.token_type") or [_NORMAL] * len(tokens)
    backend.add_tokens(
        [
            AddedToken(token, special=kind == _CONTROL, normalized=False)
            for token, kind in zip(tokens, kinds, strict=True)
            if kind in (_CONTROL, _USER_DEFINED)
        ]
    )
    special = {}
    for name, key in (("bos", "bos"), ("eos", "eos"), ("unk", "unknown"), ("pad", "padding")):
        index = fields.get(f"tokenizer.ggml.{key}_token_id")
        special[f"{name}_token"] = None if index is None else tokens[index]
    bos = special["bos_token"]
    if bos and fields.get("tokenizer.ggml.add_bos_token", cut == "llama-bpe"):
        pieces, ids = f"{bos} $A", [(bos, vocabulary[bos])]
        backend.post_processor = processors.TemplateProcessing(single=pieces, special_tokens=ids)
    template = fields.get("tokenizer.chat_template")
    return PreTrainedTokenizerFast(tokenizer_object=backend, chat_template=template, **special)


def _words(cut: str) -> Any:
    """Return the pre-tokenizer, which splits a text into words, and words into bytes."""
    from tokenizers import Regex, pre_tokenizers

    pattern, steps = _WORDS[cut], []
    if cut == "smollm":
        steps.append(pre_tokenizers.Digits(individual_digits=True))
    if pattern:
        steps.append(pre_tokenizers.Split(Regex(pattern), "isolated"))
    steps.append(pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=pattern is None))
    return pre_tokenizers.Sequence(steps)


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
        "tokenizer.ggml.token_type": [_CONTROL] * len(special) + [_NORMAL] * (len(tokens) - len(special)),
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
        "tokenizer.ggml.padding_token_id": 0,
        "tokenizer.ggml.add_bos_token": False,
        "tokenizer.chat_template": _TINY_TEMPLATE,
    }
    return from_hf(from_gguf(fields, "tiny"))
