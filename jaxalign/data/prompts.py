"""Prompts from a file of the user's: one a line, or a table with a column for them."""

from pathlib import Path
from typing import NamedTuple

from jaxalign.data.files import read_table, read_text
from jaxalign.errors import UserError

TABLES = (".jsonl", ".json", ".csv", ".parquet")


class Prompt(NamedTuple):
    """A prompt, what the file calls it (its `id`, or the number of its line or row), and where it stands, in words."""

    id: str
    text: str
    place: str


def read_prompts(path: str | Path) -> list[Prompt]:
    """Return the prompts of a file: of a table (.jsonl, .json, .csv, .parquet) the field `prompt`, else its lines.

    Lines that are blank are passed over. In a table a field `id` names a prompt.

    Raises:
        UserError: no such file, no prompt in it, a line that is not JSON (which), a row without a prompt (which).
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"prompts={path} is not a file: give a prompt a line, or .jsonl with a field 'prompt'")
    if path.suffix.lower() in TABLES:
        found = []
        for number, row in enumerate(read_table(path), start=1):
            text = row.fields.get("prompt")
            if not isinstance(text, str) or not text.strip():
                fields = ", ".join(map(str, row.fields)) or "none"
                raise UserError(f"{row.place} has no text in the field 'prompt'; its fields are: {fields}")
            named = "id" in row.fields
            name = str(row.fields["id"] if named else number)
            found.append(Prompt(name, text, f"{row.place} (id {name})" if named else row.place))
    else:
        # splitlines would cut at a form feed or U+2028 inside a prompt.
        lines = [line.removesuffix("\r") for line in read_text(path).split("\n")]
        numbered = enumerate(lines, start=1)
        found = [Prompt(str(number), line, f"{path} line {number}") for number, line in numbered if line.strip()]
    if not found:
        raise UserError(f"prompts={path} is empty: write a prompt a line, or .jsonl with a field 'prompt'")
    return found
