"""The names of columns in a user's file."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from jaxalign.data.files import Row
from jaxalign.errors import UserError


@dataclass(frozen=True)
class Columns:
    """The column of each field that has another name in the file (`dataset.columns.FIELD=COLUMN`)."""

    names: Mapping[str, str] = field(default_factory=dict)

    def there(self, row: Row, name: str) -> bool:
        """Return whether a row has the field `name`."""
        return self.names.get(name, name) in row.fields

    def get(self, row: Row, name: str) -> Any:
        """Return the field `name` of a row.

        Raises:
            UserError: the row has no such column.
        """
        column = self.names.get(name, name)
        if column not in row.fields:
            found = ", ".join(map(str, row.fields)) or "none"
            raise UserError(
                f"{row.place} lacks {column}; its fields are: {found}: say which of them it is with "
                f"dataset.columns.{name}=FIELD"
            )
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
