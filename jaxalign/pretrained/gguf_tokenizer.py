"""The tokenizer that the metadata of a GGUF file describes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

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


@dataclass
class GgufTokenizer:
    """The tokenizer of a GGUF file, with those names of a `PreTrainedTokenizerFast` that this package uses.

    It needs the package `tokenizers` alone: importing transformers takes a second.

    backend_tokenizer   the `tokenizers.Tokenizer`
    special_tokens_map  {bos_token, eos_token, unk_token, pad_token: token}, without those that the file does not name
    chat_template       the source of the chat template; None if there is none
    """

    backend_tokenizer: Any
    special_tokens_map: dict[str, str]
    chat_template: str | None

    @property
    def bos_token_id(self) -> int | None:
        """The id of the token for the beginning of a text; None if the file names none."""
        return self._id("bos_token")

    @property
    def eos_token_id(self) -> int | None:
        """The id of the token for the end of a text; None if the file names none."""
        return self._id("eos_token")

    @property
    def pad_token_id(self) -> int | None:
        """The id of the token for the padding; None if the file names none."""
        return self._id("pad_token")

    @property
    def all_special_ids(self) -> list[int]:
        """The ids of the named special tokens."""
        return [self.backend_tokenizer.token_to_id(token) for token in dict.fromkeys(self.special_tokens_map.values())]

    @property
    def added_tokens_decoder(self) -> dict[int, Any]:
        """The tokens that are recognised as a whole in a text, as {id: `tokenizers.AddedToken`}."""
        return self.backend_tokenizer.get_added_tokens_decoder()

    def decode(
        self,
        ids: Sequence[int],
        *,
        skip_special_tokens: bool = False,
        clean_up_tokenization_spaces: Literal[False] = False,
    ) -> str:
        """Return the text of ids [T], with all its spaces."""
        return self.backend_tokenizer.decode(ids, skip_special_tokens=skip_special_tokens)

    def save_pretrained(self, folder: str | Path) -> None:
        """Write the files of a `PreTrainedTokenizerFast` into a folder."""
        self.to_transformers().save_pretrained(folder)

    def to_transformers(self) -> Any:
        """Return this tokenizer as a `PreTrainedTokenizerFast`, which shares the `backend_tokenizer`."""
        from transformers import PreTrainedTokenizerFast

        return PreTrainedTokenizerFast(
            tokenizer_object=self.backend_tokenizer, chat_template=self.chat_template, **self.special_tokens_map
        )

    def _id(self, name: str) -> int | None:
        token = self.special_tokens_map.get(name)
        return None if token is None else self.backend_tokenizer.token_to_id(token)


def from_gguf(fields: Mapping[str, Any], path: str | Path) -> GgufTokenizer:
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
    return GgufTokenizer(backend, {name: token for name, token in special.items() if token is not None}, template)


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
