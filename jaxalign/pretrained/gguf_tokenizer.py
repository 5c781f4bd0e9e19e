"""The tokenizer that the metadata of a GGUF file describes."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from jaxalign.errors import UserError


def gguf_ends(fields: Mapping[str, Any]) -> list[int]:
    """Return the end tokens besides the EOS that a GGUF file's metadata names: the ends of a turn and of a message."""
    found = (fields.get(f"tokenizer.ggml.{name}_token_id") for name in ("eot", "eom"))
    return [token for token in found if token is not None]


NORMAL, CONTROL, USER_DEFINED = 1, 3, 4
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


def _decode_with(backend: Any) -> Callable[..., str]:
    """Return the `decode` of a tokenizer that cleans nothing up."""

    def decode(
        ids: Sequence[int], *, skip_special_tokens: bool = False, clean_up_tokenization_spaces: bool = False
    ) -> str:
        return backend.decode(ids, skip_special_tokens=skip_special_tokens)

    return decode


class LateTokenizer:
    """A `PreTrainedTokenizerFast` that imports transformers, which takes a second, only once it has to.

    Encoding, decoding and the special tokens need the package `tokenizers` alone. As soon as anything else is read or
    called, or an attribute is set, this is the tokenizer of transformers, and all that is read later is that one's.
    """

    def __init__(self, backend: Any, special: Mapping[str, str | None], template: str | None):
        named = {name: token for name, token in special.items() if token is not None}
        self.__dict__.update(
            backend_tokenizer=backend,
            chat_template=template,
            special_tokens_map=named,
            decode=_decode_with(backend),
            added_tokens_decoder=backend.get_added_tokens_decoder(),
            **{f"{name}_id": token and backend.token_to_id(token) for name, token in special.items()},
        )

    def _whole(self) -> Any:
        from transformers import PreTrainedTokenizerFast

        if "hf" not in self.__dict__:
            parts = self.__dict__
            backend, template = parts["backend_tokenizer"], parts["chat_template"]
            hf = PreTrainedTokenizerFast(
                tokenizer_object=backend, chat_template=template, **parts["special_tokens_map"]
            )
            parts.clear()
            parts["hf"] = hf
        return self.__dict__["hf"]

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # Python asks for protocols, such as that of copies
            raise AttributeError(name)
        return getattr(self._whole(), name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self._whole(), name, value)


def from_gguf(fields: Mapping[str, Any], path: str | Path) -> LateTokenizer:
    """Return the tokenizer that the metadata of the GGUF file at `path` describes.

    Raises:
        UserError: it is not a byte-level BPE tokenizer, or splits words in a way that is not in `_WORDS`.
    """
    from tokenizers import AddedToken, decoders, models, normalizers, processors
    from tokenizers import Tokenizer as Backend

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
    kinds = fields.get("tokenizer.ggml.token_type") or [NORMAL] * len(tokens)
    backend.add_tokens(
        [
            AddedToken(token, special=kind == CONTROL, normalized=False)
            for token, kind in zip(tokens, kinds, strict=True)
            if kind in (CONTROL, USER_DEFINED)
        ]
    )
    special = {}
    for name, key in (("bos", "bos"), ("eos", "eos"), ("unk", "unknown"), ("pad", "padding")):
        index = fields.get(f"tokenizer.ggml.{key}_token_id")
        special[f"{name}_token"] = None if index is None else tokens[index]
    added = {token.content for token in backend.get_added_tokens_decoder().values()}
    backend.add_special_tokens([token for token in dict.fromkeys(special.values()) if token and token not in added])
    bos = special["bos_token"]
    if bos and fields.get("tokenizer.ggml.add_bos_token", cut == "llama-bpe"):
        pieces, ids = f"{bos} $A", [(bos, vocabulary[bos])]
        backend.post_processor = processors.TemplateProcessing(single=pieces, special_tokens=ids)
    template = fields.get("tokenizer.chat_template")
    return LateTokenizer(backend, special, template)


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
