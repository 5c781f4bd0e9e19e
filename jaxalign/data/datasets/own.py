"""Instructions from a user's file: prompts and responses, as texts or as conversations."""

from collections import Counter
from pathlib import Path

from jaxalign.data.account import Log, account, beyond, count, unsaid
from jaxalign.data.columns import Columns
from jaxalign.data.conversations import Message, answer_of
from jaxalign.data.examples import Example, take
from jaxalign.data.files import Row
from jaxalign.errors import UserError


def load_own_instructions(
    path: str, limit: int | None = None, columns: Columns | None = None, log: Log = unsaid
) -> list[Example]:
    """Return the prompts and responses of a JSON, JSON Lines, CSV, TSV or Parquet file.

    A row has the fields `prompt` and `response` (or `completion`, as in TRL), each a text or a list of messages; or it
    has the field `messages`, a conversation whose last message is the response. `columns` gives other names of fields.
    `log` is called with the line that says what was read, and which of these fields are passed over.

    Raises:
        UserError: the file does not exist, a row lacks a field or a column that `columns` names (which), a row has both
            forms and `columns` names neither, a conversation does not end with a single message of the assistant, or
            there are fewer than 2 rows.
    """
    columns = columns or Columns()
    if "messages" in columns.names and len(columns.names) > 1:
        raise UserError(
            "dataset.columns.messages is the whole conversation: give it without columns.prompt and columns.response"
        )
    rows = columns.read(Path(path))
    over: Counter[str] = Counter()
    examples = [_example(row, columns, f"{Path(path).stem}-{number}", over) for number, row in enumerate(rows, start=1)]
    used = take(examples, limit, f"dataset.path={path}")
    aside = [*(f"{words} in {count(number, 'row')}" for words, number in over.items()), beyond(len(rows), limit)]
    log(account("data", {Path(path): len(rows)}, count(len(used), "example"), aside))
    return used


def _example(row: Row, columns: Columns, id: str, over: Counter[str]) -> Example:
    """Return the example of a row; `over` counts the fields that are passed over, in words."""
    name, named = "response", columns.names
    if not columns.there(row, name) and row.fields.get("completion") is not None:
        columns, name = Columns({**columns.names, "response": "completion"}), "completion"
    elif not named and row.fields.get("completion"):
        over["completion beside response"] += 1
    filled = [] if named else [one for one in ("prompt", name, "messages") if row.fields.get(one) not in (None, "")]
    if len(filled) == 3:
        raise UserError(
            f"{row.place} has prompt, {name} and messages: say which to read with dataset.columns.messages=messages, "
            f"or with dataset.columns.prompt=prompt dataset.columns.response={name}"
        )
    if "messages" in columns.names or "messages" in filled:
        # Some data sets have the beginning of a conversation as a prompt too, and no response beside it.
        over.update(f"{one} beside messages" for one in filled[:-1])
        messages = columns.messages(row, "messages")
        if len(messages) < 2 or messages[-1].role != "assistant":
            raise UserError(f"{row.place}: messages must end with the assistant's answer to what stands before it")
        return Example(messages[:-1], messages[-1].content, id)
    given, prompt = columns.dialogue(row, "response"), columns.dialogue(row, "prompt")
    answer = given if isinstance(given, str) else answer_of(given, row.place, name)
    if not isinstance(prompt, str):
        return Example(prompt, answer, id)
    if not isinstance(given, str):
        return Example((Message("user", prompt),), answer, id)
    return Example(prompt, answer, id, shorten=prompt)
