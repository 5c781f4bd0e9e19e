"""Stop strings in texts of three kinds of tokenizers: fixed bytes, byte fallback, and tokens without a text."""

import itertools

import numpy as np
import pytest

from jaxalign.inference.stopping import BROKEN, find_stop, showable
from jaxalign.pretrained.tokenizer import from_hf


def spelling(*pieces):
    """Decode tokens that stand for fixed bytes, one or more."""
    return lambda ids: b"".join(pieces[i] for i in ids).decode(errors="replace")


@pytest.fixture(scope="module")
def llama():
    """A tokenizer as Llama 2 and Mistral have it: words with a marker, and bytes for all other characters."""
    from tokenizers import Tokenizer, decoders, models
    from transformers import PreTrainedTokenizerFast

    words = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), "▁Hi", "▁I", "▁", "you", "<"]
    backend = Tokenizer(models.BPE({word: n for n, word in enumerate(words)}, [], byte_fallback=True))
    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    backend.decoder = decoders.Sequence(steps)
    return from_hf(PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<s>", eos_token="</s>"))


def byte_tokens(text):
    """The tokens of a text, byte by byte, of the tokenizer above."""
    return [3 + byte for byte in text.encode()]


def walk(tokens, stops, decode, step):
    """Look for stops every `step` tokens, as decoding does."""
    for end in [*range(step, len(tokens), step), len(tokens)]:
        new = step if end % step == 0 else end % step
        found = find_stop(tokens[:end], new, stops, decode)
        if found:
            return found
    return None


def by_hand(tokens, stops, decode):
    """The same by the whole text after each token."""
    for length in range(1, len(tokens) + 1):
        text = decode(tokens[:length])
        found = [text.index(stop) for stop in stops if stop in text]
        if found:
            return length, text[: min(found)]
    return None


@pytest.mark.parametrize(
    ("stop", "found"),
    [
        ("lo w", (4, "hel")),  # over three tokens
        ("hel", (1, "")),
        ("wor", (4, "hello ")),
        ("é", (6, "hello wor")),  # its two bytes are two tokens
        ("zzz", None),
    ],
)
@pytest.mark.parametrize("step", [1, 4, 9])
def test_stop_strings_are_found_across_tokens(stop, found, step):
    decode = spelling(b"hel", b"lo", b" ", b"wor", *(bytes([b]) for b in "éé".encode()), b"x")
    assert walk(list(range(9)), (stop, "never"), decode, step) == found


@pytest.mark.parametrize("step", [1, 4, 16])
@pytest.mark.parametrize("stop", ["好", "你好", "你", "吗?", "你好吗", "?", " I"])
def test_stop_strings_of_bytes_are_found_with_byte_fallback(llama, stop, step):
    hi, i = 3 + 256, 3 + 257
    for before in range(14):  # so that a step, and what is looked at again, begins at every byte of a character
        tokens = [hi] * before + byte_tokens("我们很好, 你好吗?") + [i]
        assert walk(tokens, (stop,), llama.decode, step) == by_hand(tokens, (stop,), llama.decode) is not None


def test_tokens_without_a_text_do_not_hide_a_stop_string():
    decode = spelling(b"a", b"b", b"")
    tokens = [0, *[2] * 40, 1]
    assert find_stop(tokens, 4, ("ab",), decode) == (42, "")


def test_any_text_stops_where_reading_it_token_by_token_says(llama):
    random = np.random.default_rng(0)
    bytes_of = byte_tokens("a é 你好 😀 <")
    for _ in range(60):
        tokens = [int(random.choice([259, 260, 262, 263, *bytes_of])) for _ in range(48)]
        text = llama.decode(tokens)
        start = int(random.integers(0, len(text) - 3))
        stops = (text[start : start + int(random.integers(1, 4))],)
        if BROKEN in stops[0]:
            continue
        for step in (4, 16):
            found, wanted = walk(tokens, stops, llama.decode, step), by_hand(tokens, stops, llama.decode)
            assert found == wanted


def test_what_may_become_a_stop_string_is_held_back():
    assert showable("Well, \nQ", ("\nQ:",)) == "Well, "
    assert showable("Well, \nQ?", ("\nQ:",)) == "Well, \nQ?"
    assert showable(f"Well{BROKEN}{BROKEN}", ()) == "Well"
    text, stops = "one END of it", ("END.", "of a")
    shown = [showable(text[:size], stops) for size in range(len(text) + 1)]
    assert all(later.startswith(earlier) for earlier, later in itertools.pairwise(shown))
    assert shown[-1] == text
