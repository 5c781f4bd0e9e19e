import pytest

from jaxalign.data.conversations import Message, answer_of, read_messages, shared_text
from jaxalign.data.encoding import Encoder
from jaxalign.errors import UserError

ASK = {"role": "user", "content": "Is it late?"}
YES = {"role": "assistant", "content": "Yes."}


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("Is it late?", "must be a list of messages"),
        ([], "must be a list of messages"),
        (["Is it late?"], "message 1 of prompt has the role None"),
        ([ASK, {"role": "bot", "content": "Yes."}], "message 2 of prompt has the role 'bot'; known are system, user"),
        ([{"role": "user"}], "message 1 of prompt has no text"),
        ([{"role": "user", "content": "  "}], "message 1 of prompt has no text"),
    ],
)
def test_what_is_no_conversation_is_named_with_its_place(value, said):
    with pytest.raises(UserError, match=f"f.jsonl line 3.*{said}"):
        read_messages(value, "f.jsonl line 3", "prompt")


def test_an_answer_is_one_message_of_the_assistant():
    assert answer_of([Message("assistant", "Yes.")], "here", "chosen") == "Yes."
    for roles in ([], ["user"], ["assistant", "user"], ["assistant", "assistant"]):
        with pytest.raises(UserError, match="one message of the assistant is needed"):
            answer_of([Message(role, "text") for role in roles], "here", "chosen")


@pytest.mark.parametrize(
    ("chosen", "rejected", "prompt"),
    [
        ("Ask.\nYes.", "Ask.\nYellow.", "Ask.\n"),
        ("Why? Because.", "Why? Being.", "Why?"),
        ("Same", "Same", ""),
        ("a b", "c d", ""),
        ("One two three", "One two", "One"),
    ],
)
def test_a_prompt_inside_both_texts_ends_where_a_text_may_be_cut(chosen, rejected, prompt):
    assert shared_text(chosen, rejected) == shared_text(rejected, chosen) == prompt


def test_a_conversation_goes_through_the_chat_template_and_brings_its_own_system_message(tokenizer):
    encoder = Encoder(tokenizer, "chat", "Be brief.")
    turns = read_messages([ASK, YES, ASK], "here", "prompt")
    assert encoder.render(turns) == tokenizer.chat([ASK, YES, ASK], "Be brief.")
    own = read_messages([{"role": "system", "content": "Be long."}, ASK], "here", "prompt")
    assert encoder.render(own) == tokenizer.chat([{"role": "system", "content": "Be long."}, ASK])
    assert encoder.render(turns[:1]) == encoder.render("Is it late?")
    with pytest.raises(UserError, match=r"add model\.prompt_format=chat"):
        Encoder(tokenizer).render(turns)
