"""Prompts that are conversations: lists of messages, as TRL and the hub's chat data have them."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from jaxalign.errors import UserError

ROLES = ("system", "user", "assistant")


class Message(NamedTuple):
    """One turn of a conversation."""

    role: str
    content: str


PromptText = str | tuple[Message, ...]
"""A prompt as text, or as the conversation that a response follows."""


def read_messages(value: Any, place: str, name: str) -> tuple[Message, ...]:
    """Return a list of messages {"role": ..., "content": ...}; `place` and `name` say where it stands.

    Raises:
        UserError: it is no such list, a role is unknown, or a message has no text.
    """
    form = 'a list of messages, each {"role": ..., "content": ...}'
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
    """Return the text of a response that is given as messages; UserError unless it is one message of the assistant."""
    if len(messages) != 1 or messages[0].role != "assistant":
        roles = ", ".join(message.role for message in messages) or "nothing"
        raise UserError(
            f"{place}: behind the prompt {name} holds {roles}; one message of the assistant is needed, because a "
            "response is one answer"
        )
    return messages[0].content


def split_shared(chosen: Sequence[Message], rejected: Sequence[Message]) -> int:
    """Return how many messages two conversations begin with alike: the prompt that both answer.

    >>> ask, yes, no = Message("user", "Late?"), Message("assistant", "Yes."), Message("assistant", "No.")
    >>> split_shared([ask, yes], [ask, no])
    1
    """
    return _shared(chosen, rejected)


def _shared(first: Sequence, other: Sequence) -> int:
    pairs = zip(first, other, strict=False)
    return next((n for n, (a, b) in enumerate(pairs) if a != b), min(len(first), len(other)))


def shared_text(chosen: str, rejected: str) -> str:
    r"""Return the prompt of two texts that hold it themselves: what both begin with, up to a newline or to a space.

    >>> shared_text("Q: Late?\nA: Yes.", "Q: Late?\nA: Yet no.")
    'Q: Late?\nA:'
    """
    common = chosen[: _shared(chosen, rejected)]
    if common and common[-1] == "\n":
        return common
    # The cut stands after a newline or before a space, as everywhere: the tokens on both sides are the whole text's.
    newline, space = common.rfind("\n") + 1, common.rfind(" ")
    return common[: max(newline, space, 0)]
