"""Prompts from a user's file: one prompt in each line, or a table with a column `prompt`."""

from pathlib import Path
from typing import NamedTuple

from jaxalign.data.account import Log, account, count, if_any, unsaid
from jaxalign.data.files import note_id, read_table
from jaxalign.errors import UserError
from jaxalign.runs.reading import not_a_file, read_text

TABLES = (".jsonl", ".json", ".csv", ".tsv", ".parquet")


class Prompt(NamedTuple):
    """A prompt: its `id` in the file (or the number of its line or row), its text, and its place for error messages."""

    id: str
    text: str
    place: str


def read_prompts(path: str | Path, log: Log = unsaid) -> list[Prompt]:
    """Return the prompts of a file: the field `prompt` of a table (.jsonl, .json, .csv, .tsv, .parquet), or the lines.

    Blank lines are skipped. A table may have a field `id`, which names the prompt; without one, the number of the row
    does. `log` is called with the line that says what was read.

    Raises:
        UserError: the file does not exist or has no prompt, a line is not JSON, a row has no prompt (which), or an id
            is empty or occurs twice.
    """
    path = Path(path)
    if why := not_a_file(path):
        raise UserError(f"prompts={path} is not a file ({why}): give a prompt a line, or .jsonl with a field 'prompt'")
    over = 0
    if path.suffix.lower() in TABLES:
        found, places = [], {}
        for number, row in enumerate(read_table(path), start=1):
            text = row.fields.get("prompt")
            if not isinstance(text, str) or not text.strip():
                raise UserError(f"{row.place} has no text in the field 'prompt'; {row.in_words}")
            named = row.fields.get("id") is not None
            place = row.place if named else f"{row.place} (which has no id but its number)"
            name = note_id(places, row.fields["id"] if named else number, place)
            found.append(Prompt(name, text, f"{row.place} (id {name})" if named else row.place))
            over += row.fields.get("messages") not in (None, "")
        rows = len(found)
    else:
        # `splitlines` would also split at a form feed or U+2028 inside a prompt.
        lines = [line.removesuffix("\r") for line in read_text(path).removesuffix("\n").split("\n")]
        numbered = enumerate(lines, start=1)
        found = [Prompt(str(number), line, f"{path} line {number}") for number, line in numbered if line.strip()]
        rows = len(lines)
    if not found:
        raise UserError(f"prompts={path} is empty: write a prompt a line, or .jsonl with a field 'prompt'")
    aside = [if_any(rows - len(found), "blank"), f"messages beside prompt in {count(over, 'row')}" if over else ""]
    log(account("prompts", {path: rows}, count(len(found), "prompt"), aside))
    return found
