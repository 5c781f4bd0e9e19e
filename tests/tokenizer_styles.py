"""Small tokenizers in the style of each family, made of a list of words with the package `tokenizers` alone."""

from collections.abc import Callable, Sequence

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

# Merges that a cut between two texts may break: white space in a row, marks with what follows, parts of words.
WORDS = [" the", " answer", "answer", " is", " yes", "yes", " no", "no", "  ", "    ", " (", "(A", " (A", "A)", "n't"]
WORDS += ["12", " 12", "123", ":", " it", " late", " Question", "Question", "Answer", " Answer", " and", "...", ".)"]
LINES = ["\n\n", "\n\n\n", ".\n", ":\n\n", "?\n", ")\n", " \n", ":yes", "(no"]
CHARACTERS = [*map(chr, range(33, 127)), "é", "ü"]
LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
SPECIAL = ["<unk>", "<s>", "</s>", "<|im_start|>", "<|im_end|>"]


def bpe(words: Sequence[str], alphabet: Sequence[str], **settings: bool) -> models.BPE:
    """Return a model whose tokens are the special ones, the alphabet, and these words with all their beginnings."""
    tokens, merges = dict.fromkeys([*SPECIAL, *alphabet]), {}
    for word in words:
        for size in range(2, len(word) + 1):
            merges[word[: size - 1], word[size - 1]] = None
            tokens[word[:size]] = None
    vocabulary = {token: index for index, token in enumerate(tokens)}
    return models.BPE(vocabulary, list(merges), unk_token="<unk>", **settings)


def sentencepiece(newlines: bool) -> models.BPE:
    """Return a model with a mark for a space, and bytes for characters that it does not know, newlines among them."""
    words = [word.replace(" ", "▁") for word in (*WORDS, *(LINES if newlines else []))]
    alphabet = [*(f"<0x{byte:02X}>" for byte in range(256)), "▁", *CHARACTERS, *(["\n"] if newlines else [])]
    return bpe(words, alphabet, byte_fallback=True, fuse_unk=True)


def byte_level(pattern: str | None) -> Tokenizer:
    """Return a tokenizer of bytes, whose words are cut by a pattern; None for GPT-2's."""
    whole = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    words = ["".join(piece for piece, _ in whole.pre_tokenize_str(word)) for word in (*WORDS, *LINES)]
    backend = Tokenizer(bpe(words, sorted(pre_tokenizers.ByteLevel.alphabet())))
    steps = [] if pattern is None else [pre_tokenizers.Split(Regex(pattern), "isolated")]
    level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=pattern is None)
    backend.pre_tokenizer = pre_tokenizers.Sequence([*steps, level])
    backend.decoder = decoders.ByteLevel()
    return backend


def with_bos(backend: Tokenizer, *before: processors.PostProcessor) -> Tokenizer:
    template = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", SPECIAL.index("<s>"))])
    backend.post_processor = processors.Sequence([*before, template])
    return backend


def gpt2() -> Tokenizer:
    backend = byte_level(None)
    backend.post_processor = processors.ByteLevel(trim_offsets=True)
    return backend


def llama2() -> Tokenizer:
    backend = Tokenizer(sentencepiece(newlines=False))
    backend.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    backend.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return with_bos(backend)


def mistral() -> Tokenizer:
    backend = Tokenizer(sentencepiece(newlines=False))
    backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    backend.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return with_bos(backend)


def gemma() -> Tokenizer:
    backend = Tokenizer(sentencepiece(newlines=True))
    backend.normalizer = normalizers.Replace(" ", "▁")
    backend.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    backend.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    return with_bos(backend)


def llama3() -> Tokenizer:
    return with_bos(byte_level(LLAMA3), processors.ByteLevel(trim_offsets=True))


def qwen() -> Tokenizer:
    backend = byte_level(LLAMA3.replace("{1,3}", ""))
    backend.normalizer = normalizers.NFC()
    return backend


STYLES: dict[str, Callable[[], Tokenizer]] = {
    style.__name__: style for style in (gpt2, llama2, mistral, gemma, llama3, qwen)
}


def hugging_face(name: str) -> PreTrainedTokenizerFast:
    """Return the tokenizer of a style as Transformers has it; <s> is the BOS, and </s> the EOS."""
    backend = STYLES[name]()
    backend.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIAL])
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        clean_up_tokenization_spaces=False,
    )
