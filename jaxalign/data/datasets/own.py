"""Instructions from a user's file: prompts and responses, as texts or as conversations."""

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
    `log` is called with the line that says what was read.

    Raises:
        UserError: the file does not exist, a row lacks a field or a column that `columns` names (which), a conversation
            does not end with a single message of the assistant, or there are fewer than 2 rows.
    """
    columns = columns or Columns()
    if "messages" in columns.names and len(columns.names) > 1:
        raise UserError(
            "dataset.columns.messages is the whole conversation: give it without columns.prompt and columns.response"
        )
    rows = columns.read(Path(path))
    examples = [_example(row, columns, f"{Path(path).stem}-{number}") for number, row in enumerate(rows, start=1)]
    used = take(examples, limit, f"dataset.path={path}")
    log(account("data", {Path(path): len(rows)}, count(len(used), "example"), [beyond(len(rows), limit)]))
    return used


def _example(row: Row, columns: Columns, id: str) -> Example:
    name, named = "response", columns.names
    if not columns.there(row, name) and row.fields.get("completion") is not None:
        columns, name = Columns({**columns.names, "response": "completion"}), "completion"
    # Some data sets have the beginning of a conversation as a prompt too, and no response beside it.
    split = columns.there(row, "prompt") and columns.there(row, "response")
    if "messages" in columns.names or (not split and not named and columns.there(row, "messages")):
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
