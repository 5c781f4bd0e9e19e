"""Rows of JSON, JSON Lines, CSV, TSV and Parquet files, each with its place for error messages."""

import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from jaxalign.errors import UserError


class Row(NamedTuple):
    """A row: its place ("FILE line 7"), and its fields by name."""

    place: str
    fields: dict[str, Any]


def read_text(path: Path) -> str:
    """Return the text of a UTF-8 file, without a byte order mark.

    Raises:
        UserError: the file cannot be read, or is not UTF-8.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:  # keep line ends, because they may be inside a field
            return file.read()
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 text (byte {error.start}): save it as UTF-8") from error
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from error


def read_table(path: Path) -> list[Row]:
    """Return the rows of a file: .csv, .parquet, or any other name for a JSON array or JSON Lines.

    Raises:
        UserError: the file does not exist, or cannot be parsed (which line).
    """
    if not path.is_file():
        raise UserError(f"dataset.path={path} is not a file: give a .json, .jsonl, .csv or .parquet file")
    if path.suffix.lower() == ".parquet":
        return _parquet(path)
    text = read_text(path)
    if path.suffix.lower() == ".csv":
        return _csv(path, text)
    return _array(path, text) if text.lstrip().startswith("[") else _lines(path, text)


def read_tsv(path: Path, columns: Sequence[str] = ()) -> list[Row]:
    """Return the rows of a file with fields between tabs, without quoting. Spaces around a field are removed.

    Raises:
        UserError: the file cannot be read, the header lacks one of `columns`, or a row has more or fewer fields.
    """
    lines = [line.rstrip("\r") for line in read_text(path).split("\n")]
    header = [name.strip() for name in lines[0].split("\t")]
    missing = [column for column in columns if column not in header]
    if missing:
        raise UserError(f"{path} lacks the column {missing[0]!r}; its columns are: {', '.join(header) or 'none'}")
    rows = []
    for number, line in enumerate(lines[1:], start=2):
        if not line.strip():
            continue
        place, fields = f"{path} line {number}", line.split("\t")
        if len(fields) != len(header):
            raise UserError(f"{place} has {len(fields)} columns where the header has {len(header)}")
        rows.append(Row(place, {name: field.strip() for name, field in zip(header, fields, strict=True)}))
    return rows


def _lines(path: Path, text: str) -> list[Row]:
    rows = []
    for number, line in enumerate(text.split("\n"), start=1):  # `splitlines` would also split at U+2028 inside a string
        if line.strip():
            place = f"{path} line {number}"
            try:
                rows.append(_row(place, json.loads(line)))
            except json.JSONDecodeError as error:
                raise UserError(
                    f"{place} is not JSON ({error.msg}): expected an object a line, an array, or a .csv file"
                ) from error
    return rows


def _array(path: Path, text: str) -> list[Row]:
    try:
        items = json.loads(text)
    except json.JSONDecodeError as error:
        raise UserError(f"{path} line {error.lineno} is not JSON ({error.msg})") from error
    return [_row(f"{path} row {number}", item) for number, item in enumerate(items, start=1)]


def _row(place: str, item: object) -> Row:
    if not isinstance(item, dict):
        raise UserError(f"{place} is not an object with named fields")
    return Row(place, item)


def _csv(path: Path, text: str) -> list[Row]:
    reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
    rows = []
    try:
        for fields in reader:
            place = f"{path} line {reader.line_num}"
            if None in fields or None in fields.values():
                raise UserError(f"{place} has not the {len(reader.fieldnames or ())} columns that the header has")
            rows.append(Row(place, fields))
    except csv.Error as error:
        raise UserError(f"{path} line {reader.line_num} is not CSV ({error})") from error
    return rows


def _parquet(path: Path) -> list[Row]:
    from datasets import load_dataset
    from datasets.exceptions import DatasetsError

    try:
        table = load_dataset("parquet", data_files=str(path), split="train", keep_in_memory=True)
    except (OSError, ValueError, DatasetsError) as error:
        raise UserError(f"{path} cannot be read as Parquet: {error}") from error
    return [Row(f"{path} row {number}", dict(fields)) for number, fields in enumerate(table, start=1)]
