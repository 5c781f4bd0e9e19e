import dataclasses

import numpy as np
import pytest

from jaxalign.data.encoding import Encoder, encode_examples
from jaxalign.data.examples import Example
from jaxalign.errors import UserError

PREMISE = "it has always been like this and nobody minds"
STAGE_1 = Example("Claim: we should rest.\nAnswer:\n", f"I agree, because {PREMISE}.", "first", shorten=PREMISE)
STAGE_2 = Example(f'"{PREMISE}" Is this you?\nAnswer:\n', "Very much: 6", "second", shorten=PREMISE)


@pytest.fixture
def encoder(tokenizer):
    return Encoder(tokenizer)


@pytest.fixture
def with_bos(tokenizer):
    """An encoder whose model begins every text with token 1."""
    return Encoder(dataclasses.replace(tokenizer, bos_id=1))


def text(encoder, tokens):
    return encoder.tokenizer.decode(tokens)


def test_the_bos_stands_once_at_the_root_and_nowhere_else(with_bos, encoder):
    assert with_bos.prompt("A claim.\n").tolist().count(1) == 1
    assert with_bos.prompt("A claim.\n")[0] == 1
    assert 1 not in with_bos.text("more")
    assert 1 not in with_bos.branches("A claim.\n", ["more"], end=True)[1][0]
    assert 1 not in encoder.prompt("A claim.\n")
    assert with_bos.root("").tolist() == [1]


def test_a_response_ends_with_the_eos_and_a_prompt_does_not(encoder):
    eos = encoder.tokenizer.eos_id
    encoded = encode_examples([STAGE_1], encoder, 500)
    assert encoded.responses[0].tolist().count(eos) == 1
    assert encoded.responses[0][-1] == eos
    assert eos not in encoded.prompts[0]
    assert encoded.prompts[0].dtype == encoded.responses[0].dtype == np.int32


def test_an_example_is_the_same_tokens_as_its_text_in_one_piece(encoder):
    encoded = encode_examples([STAGE_2], encoder, 500)
    whole = encoder.tokenizer.encode(STAGE_2.prompt + STAGE_2.response)
    np.testing.assert_array_equal(np.concatenate([encoded.prompts[0], encoded.responses[0][:-1]]), whole)


def test_the_chat_format_is_one_user_turn_up_to_the_answer(tokenizer):
    chat = Encoder(tokenizer, "chat", "Be brief.")
    rendered = text(chat, chat.prompt("A claim.\n"))
    assert rendered.index("Be brief.") < rendered.index("A claim.")
    assert rendered == tokenizer.chat([{"role": "user", "content": "A claim."}], system="Be brief.")
    assert chat.prompt("A claim.\n").tolist().count(tokenizer.eos_id) >= 1  # the template's own end of turn


def test_what_fits_is_left_alone(encoder):
    size = encode_examples([STAGE_2], encoder, 500).tokens(0)
    encoded = encode_examples([STAGE_2], encoder, size)
    assert encoded.cut == [False]
    assert text(encoder, encoded.prompts[0]) == STAGE_2.prompt


@pytest.mark.parametrize("missing", [1, 5, 20])
def test_a_premise_in_the_prompt_is_shortened_and_the_response_is_whole(encoder, missing):
    whole = encode_examples([STAGE_2], encoder, 500)
    encoded = encode_examples([STAGE_2], encoder, whole.tokens(0) - missing)
    assert encoded.cut == [True]
    assert encoded.tokens(0) <= whole.tokens(0) - missing
    np.testing.assert_array_equal(encoded.responses[0], whole.responses[0])
    shown = text(encoder, encoded.prompts[0])
    start, end = STAGE_2.prompt.split(PREMISE)
    assert shown.startswith(start)
    assert shown.endswith(end)
    assert PREMISE.startswith(shown.removeprefix(start).removesuffix(end))


def test_a_premise_in_the_response_is_shortened_there_and_its_end_stays(encoder):
    whole = encode_examples([STAGE_1], encoder, 500)
    encoded = encode_examples([STAGE_1], encoder, whole.tokens(0) - 12)
    np.testing.assert_array_equal(encoded.prompts[0], whole.prompts[0])
    shown = text(encoder, encoded.responses[0][:-1])
    assert shown.startswith("I agree, because it has always")
    assert shown.endswith(".")
    assert encoded.responses[0][-1] == encoder.tokenizer.eos_id
    assert encoded.cut == [True]


def test_a_cut_leaves_no_half_character(encoder):
    example = Example("“éééééééé” Is this you?\n", "6", "accents", shorten="éééééééé")
    whole = encode_examples([example], encoder, 500).tokens(0)
    for missing in range(1, 8):
        encoded = encode_examples([example], encoder, whole - missing)
        assert "�" not in text(encoder, encoded.prompts[0])
        assert encoded.tokens(0) <= whole - missing


@pytest.mark.parametrize("example", [STAGE_1, dataclasses.replace(STAGE_1, shorten="")])
def test_what_cannot_be_shortened_enough_is_refused_by_name(encoder, example):
    with pytest.raises(UserError, match=r"example first: its prompt and response take .* and the context holds 12"):
        encode_examples([example], encoder, 12)


def test_the_released_truncation_takes_the_end_of_the_answer_and_leaves_out_what_has_none(encoder):
    prompt = len(encoder.prompt(STAGE_2.prompt))
    examples = [STAGE_2, dataclasses.replace(STAGE_1, shorten="")]
    encoded = encode_examples(examples, encoder, 500, truncate=prompt + 3)
    np.testing.assert_array_equal(encoded.responses[0], encoder.branches(STAGE_2.prompt, [STAGE_2.response])[1][0][:3])
    assert encoded.cut == [True, True]
    (only,) = encode_examples([STAGE_2], encoder, 500, truncate=prompt).cut
    assert only
    assert len(encode_examples([STAGE_2], encoder, 500, truncate=prompt)) == 0
