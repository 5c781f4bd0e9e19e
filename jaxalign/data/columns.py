"""The names of columns in a user's file."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jaxalign.data.conversations import Message, PromptText, is_written_conversation, read_messages
from jaxalign.data.files import Row, read_table
from jaxalign.errors import UserError
from jaxalign.runs.reading import parse_json


@dataclass(frozen=True)
class Columns:
    """The column of each field that has another name in the file (`dataset.columns.FIELD=COLUMN`).

    If `published` is true, the file has the columns that its owner publishes, and none may be renamed.
    """

    names: Mapping[str, str] = field(default_factory=dict)
    published: bool = False

    def read(self, path: Path) -> list[Row]:
        """Return the rows of a file, each of which has all columns that the user named.

        Raises:
            UserError: the file cannot be read (see `read_table`), or a row lacks a column that the user named.
        """
        rows = read_table(path)
        for row in rows:
            for name, column in self.names.items():
                if column not in row.fields:
                    raise UserError(
                        f"{row.place} lacks {column}, which dataset.columns.{name} names; {row.in_words}: give the "
                        "name of one of them, in every row"
                    )
        return rows

    def there(self, row: Row, name: str) -> bool:
        """Return whether a row has the field `name`: the user named its column, or it is there and not null."""
        return name in self.names or row.fields.get(name) is not None

    def get(self, row: Row, name: str) -> Any:
        """Return the field `name` of a row.

        Raises:
            UserError: the row has no such column.
        """
        column = self.names.get(name, name)
        if column not in row.fields:
            mend = f"say which of them it is with dataset.columns.{name}=FIELD"
            if self.published:
                mend = "give the file in the form in which its owner publishes it"
            raise UserError(f"{row.place} lacks {column}; {row.in_words}: {mend}")
        return row.fields[column]

    def text(self, row: Row, name: str) -> str:
        """Return the field `name` of a row, a text that is not blank.

        Raises:
            UserError: the row has no such column, or it is not such a text.
        """
        value = self.get(row, name)
        if not isinstance(value, str) or not value.strip():
            raise UserError(f"{row.place} has no text in the field {self.names.get(name, name)!r}")
        return value

    def dialogue(self, row: Row, name: str) -> PromptText:
        """Return the field `name` of a row: a text that is not blank, or a conversation.

        A conversation may also be written as JSON text, because a CSV file holds only texts.

        Raises:
            UserError: the row has no such column, or it is neither of the two.
        """
        value = self.get(row, name)
        written = isinstance(value, str) and is_written_conversation(value)
        return self.messages(row, name) if written or isinstance(value, list) else self.text(row, name)

    def messages(self, row: Row, name: str) -> tuple[Message, ...]:
        """Return the field `name` of a row, a conversation: a list of messages, or the same as JSON text.

        Raises:
            UserError: the row has no such column, or it is not a conversation.
        """
        return read_messages(_from_json(self.get(row, name), row.place), row.place, self.names.get(name, name))

    def items(self, row: Row, name: str, what: str) -> list[Any]:
        """Return the field `name` of a row, a list; a text is read as a JSON list, because a CSV file holds only texts.

        `what` says in the error line what the list holds.

        Raises:
            UserError: the row has no such column, or it is not a list.
        """
        value = self.get(row, name)
        found = _from_json(value, row.place)
        if not isinstance(found, list):
            raise UserError(f"{row.place} has {self.names.get(name, name)}={value!r:.60}: it must be a list of {what}")
        return found


def _from_json(value: Any, place: str) -> Any:
    """Return what a text holds as JSON; the text itself if it is not JSON, and any other value as it is."""
    try:
        return parse_json(value, place) if isinstance(value, str) else value
    except UserError:
        return value
