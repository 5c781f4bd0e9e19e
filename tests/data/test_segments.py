"""Texts that are encoded part by part have the tokens of the whole text, whatever the tokenizer's style."""

import numpy as np
import pytest
from tokenizer_styles import STYLES, hugging_face

from jaxalign.data.encoding import Encoder
from jaxalign.pretrained.tokenizer import from_hf

PIECES = [" ", "  ", "\n", "\n\n", "the", "answer", "yes", "no", "Question", "Answer", "is", "12", "3", ":", "?", "."]
PIECES += [
    "(A",
    ")",
    "n't",
    "...",
    "é",
    "e\u0301",
    "ü",
    "日本",
    "🙂",
    "\t",
    " \n",
    "it",
    "\N{ZERO WIDTH JOINER}",
    "</s>",
]
TEMPLATES = {
    "chatml": (
        "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    ),
    "llama2": (
        "{{ bos_token }}{% for m in messages %}{% if m['role'] == 'user' %}[INST] {{ m['content'] }} [/INST]"
        "{% else %}{{ ' ' + m['content'] + ' ' + eos_token }}{% endif %}{% endfor %}"
    ),
    "spaced": (
        "{% for m in messages %}{{ m['role'] }}:\n\n{{ m['content'] }}</s>\n\n{% endfor %}"
        "{% if add_generation_prompt %}assistant:\n\n{% endif %}"
    ),
}


@pytest.fixture(params=STYLES)
def style(request):
    return hugging_face(request.param)


def texts(random, count):
    """Return a beginning that no tokenizer takes for one token, and `count` texts that may follow it."""
    drawn = ["".join(random.choice(PIECES, random.integers(1, 7))) for _ in range(count + 1)]
    return f"Question {drawn[0]}", drawn[1:]


def test_a_prompt_and_what_follows_it_have_the_tokens_of_the_whole_text(style):
    encoder, random = Encoder(from_hf(style)), np.random.default_rng(0)
    moved = 0
    for _ in range(300):
        prompt, (after, *responses) = texts(random, 4)
        for given in ("", after):
            trunk, branches = encoder.branches(prompt, responses, given, end=True)
            alone = style.encode(prompt + given)
            moved += trunk.tolist() != alone
            for response, branch in zip(responses, branches, strict=True):
                whole = style.encode(prompt + given + response)
                assert [*trunk, *branch] == [*whole, style.eos_token_id]
    assert moved > 30  # the texts do ask for it


def test_a_cut_before_a_word_behind_one_newline_stands_where_it_is_in_every_style(style):
    encoder = Encoder(from_hf(style))
    prompt = "Question: is it late?\nAnswer:\n"
    trunk, (yes, no) = encoder.branches(prompt, ["yes, it is", "no"], end=True)
    assert trunk.tolist() == encoder.prompt(prompt).tolist() == style.encode(prompt)
    assert encoder.tokenizer.decode(yes).strip() == "yes, it is</s>" and encoder.tokenizer.decode(no) == "no</s>"


@pytest.mark.parametrize("ending", ["\n", "\n\n", ": ", ":", ":\n\n", "  "])
def test_a_sample_begins_with_the_tokens_that_a_word_behind_the_prompt_was_trained_with(style, ending):
    encoder = Encoder(from_hf(style))
    for prompt, after in ((f"Question{ending}", ""), ("Question:\n", f"the answer is{ending}")):
        trunk, _ = encoder.branches(prompt, ["answer", "it is"], after)
        begun = encoder.prompt(prompt, after)
        assert begun.tolist() == (trunk.tolist() if ending[-1].isspace() else style.encode(prompt + after))


def test_a_sentencepiece_prompt_of_one_token_is_read_after_the_bos(style):
    encoder = Encoder(from_hf(style))
    trunk, (branch,) = encoder.branches("1", ["2"])
    assert len(trunk) and len(branch)
    if encoder.tokenizer.bos_id is not None:
        assert [*trunk, *branch] == style.encode("12")


@pytest.mark.parametrize("template", TEMPLATES)
def test_a_chat_is_trained_on_what_the_template_writes_up_to_its_end_token(style, template):
    style.chat_template = TEMPLATES[template]
    tokenizer = from_hf(style)
    encoder, random = Encoder(tokenizer, "chat"), np.random.default_rng(1)
    for _ in range(50):
        prompt, (response,) = texts(random, 1)
        asked, response = (text.replace("</s>", "").strip() or "no" for text in (prompt, response))
        trunk, (branch,) = encoder.branches(asked, [response], end=True)
        turns = [{"role": "user", "content": asked}, {"role": "assistant", "content": response}]
        text = style.apply_chat_template(turns, tokenize=False)
        whole = style.encode(text, add_special_tokens=text.startswith("<s>") is False)
        assert [*trunk, *branch] == whole[: len(trunk) + len(branch)]
        rest = tokenizer.decode(whole[len(trunk) + len(branch) :])
        assert rest.strip() == "" and branch[-1] in tokenizer.end_ids
        if template != "spaced":
            asked_alone = style.apply_chat_template(turns[:1], tokenize=False, add_generation_prompt=True)
            alone = style.encode(asked_alone, add_special_tokens=not asked_alone.startswith("<s>"))
            assert encoder.prompt(asked).tolist() == alone
