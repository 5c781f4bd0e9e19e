"""Instructions from a user's file: prompts and responses, as texts or as conversations."""

from pathlib import Path

from jaxalign.data.account import Log, account, beyond, count, unsaid
from jaxalign.data.columns import Columns
from jaxalign.data.conversations import Message, answer_of, read_messages
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
    alone = not columns.names and "messages" in row.fields and "prompt" not in row.fields
    if alone or "messages" in columns.names:
        messages = read_messages(columns.get(row, "messages"), row.place, "messages")
        if len(messages) < 2 or messages[-1].role != "assistant":
            raise UserError(f"{row.place}: messages must end with the assistant's answer to what stands before it")
        return Example(messages[:-1], messages[-1].content, id)
    name = "response"
    if not columns.there(row, name) and "response" not in columns.names and "completion" in row.fields:
        columns = Columns({**columns.names, "response": "completion"})
    given = columns.get(row, name)
    if isinstance(given, list):
        answer = answer_of(read_messages(given, row.place, name), row.place, name)
    else:
        answer = columns.text(row, name)
    prompt = columns.get(row, "prompt")
    if isinstance(prompt, list):
        return Example(read_messages(prompt, row.place, "prompt"), answer, id)
    text = columns.text(row, "prompt")
    if isinstance(given, list):
        return Example((Message("user", text),), answer, id)
    return Example(text, answer, id, shorten=text)
