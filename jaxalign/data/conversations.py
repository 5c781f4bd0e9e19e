"""Prompts that are conversations: lists of messages, as in TRL and in chat data on the hub."""

import re
from collections.abc import Sequence
from typing import Any, NamedTuple

from jaxalign.errors import UserError

ROLES = ("system", "user", "assistant")


class Message(NamedTuple):
    """A message of a conversation; `role` is one of `ROLES`."""

    role: str
    content: str


PromptText = str | tuple[Message, ...]
"""A prompt: a text, or the conversation before the response."""


def is_written_conversation(text: str) -> bool:
    """Return whether a text is meant as a list of messages, in JSON or as Python prints it.

    >>> is_written_conversation('[{"role": "user", "content": "Late?"}]'), is_written_conversation("[late]")
    (True, False)
    """
    return re.match(r"""\s*\[\s*\{\s*["'](role|content)["']\s*:""", text) is not None


def read_messages(value: Any, place: str, name: str) -> tuple[Message, ...]:
    """Return the messages of a list of {"role": ..., "content": ...}. `place` and `name` are for error messages.

    Raises:
        UserError: the value is not such a list, a role is not known, or a message has no text.
    """
    form = 'a list of messages, each {"role": ..., "content": ...} (in a CSV or TSV file, the same as JSON)'
    if not isinstance(value, list) or not value:
        raise UserError(f"{place} has {name}={value!r:.60}: it must be {form}")
    messages = []
    for number, one in enumerate(value, start=1):
        role, content = (one.get("role"), one.get("content")) if isinstance(one, dict) else (None, None)
        if role not in ROLES:
            raise UserError(
                f"{place}: message {number} of {name} has the role {role!r}; known are {', '.join(ROLES)}, in {form}"
            )
        if not isinstance(content, str) or not content.strip():
            raise UserError(f"{place}: message {number} of {name} has no text as its content")
        messages.append(Message(role, content))
    return tuple(messages)


def answer_of(messages: Sequence[Message], place: str, name: str) -> str:
    """Return the text of a response that is given as messages.

    Raises:
        UserError: it is not a single message of the assistant.
    """
    if len(messages) != 1 or messages[0].role != "assistant":
        roles = ", ".join(message.role for message in messages) or "nothing"
        raise UserError(
            f"{place}: behind the prompt {name} holds {roles}; one message of the assistant is needed, because a "
            "response is one answer"
        )
    return messages[0].content


def split_shared(chosen: Sequence[Message], rejected: Sequence[Message]) -> int:
    """Return the number of messages that two conversations share at the beginning: their prompt.

    >>> ask, yes, no = Message("user", "Late?"), Message("assistant", "Yes."), Message("assistant", "No.")
    >>> split_shared([ask, yes], [ask, no])
    1
    """
    return _shared(chosen, rejected)


def _shared(first: Sequence, other: Sequence) -> int:
    pairs = zip(first, other, strict=False)
    return next((n for n, (a, b) in enumerate(pairs) if a != b), min(len(first), len(other)))


def shared_text(chosen: str, rejected: str) -> str:
    r"""Return the shared beginning of two texts, up to a newline or a space: their prompt.

    >>> shared_text("Q: Late?\nA: Yes.", "Q: Late?\nA: Yet no.")
    'Q: Late?\nA:'
    """
    common = chosen[: _shared(chosen, rejected)]
    if common and common[-1] == "\n":
        return common
    # A cut after a newline or before a space does not change the tokens on its two sides.
    newline, space = common.rfind("\n") + 1, common.rfind(" ")
    return common[: max(newline, space, 0)]
