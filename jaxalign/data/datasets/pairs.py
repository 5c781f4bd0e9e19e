"""Preference pairs from a user's file: a prompt, the chosen response, and the rejected one.

It reads all forms of preference data that TRL reads: texts or conversations, with the prompt in a field of its own, or
at the beginning of both responses.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from jaxalign.data.account import Log, account, beyond, count, unsaid
from jaxalign.data.columns import Columns
from jaxalign.data.conversations import Message, PromptText, answer_of, shared_text, split_shared
from jaxalign.data.examples import take
from jaxalign.data.files import Row
from jaxalign.errors import UserError


class PairText(NamedTuple):
    """A preference pair as text, and its place in the file for error messages."""

    prompt: PromptText
    chosen: str
    rejected: str
    place: str


def load_pairs(
    path: str, limit: int | None = None, columns: Columns | None = None, log: Log = unsaid
) -> list[PairText]:
    """Return the pairs of a JSON, JSON Lines, CSV, TSV or Parquet file.

    `columns` gives other names of the fields `prompt`, `chosen` and `rejected`. `log` is called with the line that says
    what was read.

    Raises:
        UserError: the file does not exist; a row lacks one of the fields, or a column that `columns` names; a field is
            neither a text nor a conversation (which); the two responses of a row are equal; there are fewer than 2
            pairs.
    """
    columns = columns or Columns()
    found = []
    for row in columns.read(Path(path)):
        pair = _pair(row, columns)
        if pair.chosen == pair.rejected:
            raise UserError(f"{row.place} prefers a response to itself: chosen and rejected are the same")
        found.append(pair)
    used = take(found, limit, f"dataset.path={path}")
    log(account("data", {Path(path): len(found)}, count(len(used), "pair"), [beyond(len(found), limit)]))
    return used


def _pair(row: Row, columns: Columns) -> PairText:
    prompt = columns.dialogue(row, "prompt") if columns.there(row, "prompt") else None
    chosen, rejected = (columns.dialogue(row, name) for name in ("chosen", "rejected"))
    if isinstance(chosen, str) and isinstance(rejected, str):
        return _texts(row, prompt, chosen, rejected)
    return _conversations(row, prompt, *(columns.messages(row, name) for name in ("chosen", "rejected")))


def _texts(row: Row, prompt: PromptText | None, chosen: str, rejected: str) -> PairText:
    if prompt is not None:
        return PairText(prompt, chosen, rejected, row.place)
    prompt = shared_text(chosen, rejected)
    instead = "add a field prompt, or say which it is with dataset.columns.prompt=FIELD"
    if not prompt:
        raise UserError(f"{row.place} has no prompt, and chosen and rejected begin with nothing alike: {instead}")
    pair = PairText(prompt, chosen[len(prompt) :], rejected[len(prompt) :], row.place)
    for name, text in (("chosen", pair.chosen), ("rejected", pair.rejected)):
        if not text.strip():
            raise UserError(
                f"{row.place} has no prompt, and {name} holds no more than the beginning of both: {instead}"
            )
    return pair


def _conversations(
    row: Row, given: PromptText | None, chosen: Sequence[Message], rejected: Sequence[Message]
) -> PairText:
    if given is not None:
        prompt = (Message("user", given),) if isinstance(given, str) else given
        size = len(prompt)
        # Some data sets repeat the prompt in both responses.
        shared = size if chosen[:size] == prompt == rejected[:size] else 0
    else:
        shared = split_shared(chosen, rejected)
        prompt = tuple(chosen[:shared])
    if not prompt:
        raise UserError(f"{row.place} has no prompt: chosen and rejected begin with no message alike")
    answers = [answer_of(one[shared:], row.place, name) for one, name in ((chosen, "chosen"), (rejected, "rejected"))]
    return PairText(prompt, *answers, place=row.place)
