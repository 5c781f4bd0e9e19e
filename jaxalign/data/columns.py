"""Columns of the user's own: what a file calls the fields that are read from it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from jaxalign.data.files import Row
from jaxalign.errors import UserError


@dataclass(frozen=True)
class Columns:
    """The file's name of each field, where it is not ours (`dataset.columns.NAME=COLUMN`)."""

    names: Mapping[str, str] = field(default_factory=dict)

    def there(self, row: Row, name: str) -> bool:
        """Return whether a row has a field."""
        return self.names.get(name, name) in row.fields

    def get(self, row: Row, name: str) -> Any:
        """Return a row's field; UserError, with what to type, where it has none."""
        column = self.names.get(name, name)
        if column not in row.fields:
            found = ", ".join(map(str, row.fields)) or "none"
            raise UserError(
                f"{row.place} lacks {column}; its fields are: {found}: say which of them it is with "
                f"dataset.columns.{name}=FIELD"
            )
        return row.fields[column]

    def text(self, row: Row, name: str) -> str:
        """Return a row's field that must be a text with something in it."""
        value = self.get(row, name)
        if not isinstance(value, str) or not value.strip():
            raise UserError(f"{row.place} has no text in the field {self.names.get(name, name)!r}")
        return value
