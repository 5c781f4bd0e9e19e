"""Rows of JSON, JSON Lines, CSV, TSV and Parquet files, each with its place for error messages."""

import csv
import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from jaxalign.errors import UserError
from jaxalign.runs.reading import not_a_file, parse_json, read_text

csv.field_size_limit(2**31 - 1)  # Python's own limit, 131,072 characters, is less than a long document


class Row(NamedTuple):
    """A row: its place ("FILE line 7"), and its fields by name."""

    place: str
    fields: dict[str, Any]


def read_table(path: Path) -> list[Row]:
    """Return the rows of a file: .csv, .tsv, .parquet, or any other name for a JSON array or JSON Lines.

    Raises:
        UserError: the file does not exist, or cannot be parsed (which line).
    """
    if why := not_a_file(path):
        raise UserError(f"dataset.path={path} is not a file ({why}): give a .json, .jsonl, .csv, .tsv or .parquet file")
    suffix = path.suffix.lower()
    if suffix == ".parquet":
        return _parquet(path)
    if suffix == ".tsv":
        return read_tsv(path)
    text = read_text(path)
    if suffix == ".csv":
        return _csv(path, text)
    return _array(path, text) if text.lstrip().startswith("[") else _lines(path, text)


def read_tsv(path: Path, columns: Sequence[str] = ()) -> list[Row]:
    """Return the rows of a file with fields between tabs, without quoting. Spaces around a field are removed.

    Raises:
        UserError: the file cannot be read, the header lacks one of `columns` or has one twice, or a row has more or
            fewer fields.
    """
    lines = [line.rstrip("\r") for line in read_text(path).split("\n")]
    header = [name.strip() for name in lines[0].split("\t")]
    missing = [column for column in columns if column not in header]
    if missing:
        raise UserError(f"{path} lacks the column {missing[0]!r}; its columns are: {', '.join(header) or 'none'}")
    _check_header(path, header)
    rows = []
    for number, line in enumerate(lines[1:], start=2):
        if not line.strip():
            continue
        place, fields = f"{path} line {number}", line.split("\t")
        if len(fields) != len(header):
            raise UserError(f"{place} has {len(fields)} columns where the header has {len(header)}")
        rows.append(Row(place, {name: field.strip() for name, field in zip(header, fields, strict=True)}))
    return rows


def csv_records(path: Path, text: str, mark: str = ",") -> Iterator[tuple[int, list[str]]]:
    """Yield the cells of each record of a CSV text, with the number of its last line; blank lines are left out.

    Raises:
        UserError: a quotation mark is not closed, or stands where none may (in which line); or `mark`, the character
            between two cells, cannot be one.
    """
    # strict=True, because an open quotation mark would otherwise swallow all later records without an error.
    try:
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=mark, strict=True)
    except (TypeError, ValueError) as error:
        raise UserError(f"{path} cannot be read with {mark!r} between its columns: {error}") from error
    while True:
        first = reader.line_num + 1
        try:
            cells = next(reader, None)
        except csv.Error as error:
            raise UserError(
                f"{path} line {first} is not CSV ({error}): close the quotation mark of that line, or leave its column "
                "out"
            ) from error
        if cells is None:
            return
        if cells:
            yield reader.line_num, cells


def _check_header(path: Path, header: Sequence[str]) -> None:
    twice = [name for number, name in enumerate(header) if name in header[:number]]
    if twice:
        raise UserError(f"{path} has the column {twice[0]!r} twice: give each column a name of its own")


def _lines(path: Path, text: str) -> list[Row]:
    rows = []
    form = "an object a line, an array, or a .csv, .tsv or .parquet file"
    for number, line in enumerate(text.split("\n"), start=1):  # `splitlines` would also split at U+2028 inside a string
        if line.strip():
            rows.append(_row(f"{path} line {number}", parse_json(line, path, number, expected=form)))
    return rows


def _array(path: Path, text: str) -> list[Row]:
    items = parse_json(text, path)
    return [_row(f"{path} row {number}", item) for number, item in enumerate(items, start=1)]


def _row(place: str, item: object) -> Row:
    if not isinstance(item, dict):
        raise UserError(f"{place} is not an object with named fields")
    return Row(place, item)


def _csv(path: Path, text: str) -> list[Row]:
    header: list[str] = []
    rows = []
    for number, cells in csv_records(path, text):
        if not header:
            header = cells
            _check_header(path, header)
        elif len(cells) != len(header):
            raise UserError(f"{path} line {number} has not the {len(header)} columns that the header has")
        else:
            rows.append(Row(f"{path} line {number}", dict(zip(header, cells, strict=True))))
    return rows


def _parquet(path: Path) -> list[Row]:
    from pyarrow import ArrowException, parquet

    try:
        table = parquet.ParquetFile(path).read()
        _check_header(path, table.column_names)
        items = table.to_pylist()
    except (ArrowException, OSError, ValueError, TypeError, OverflowError, MemoryError) as error:
        raise UserError(f"{path} cannot be read as Parquet: {error}") from error
    return [Row(f"{path} row {number}", fields) for number, fields in enumerate(items, start=1)]
