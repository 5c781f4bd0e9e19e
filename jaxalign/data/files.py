"""Rows of JSON, JSON Lines, CSV, TSV and Parquet files, each with its place for error messages."""

import csv
import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from jaxalign.errors import UserError, shown
from jaxalign.runs.reading import not_a_file, parse_json, read_text

csv.field_size_limit(2**31 - 1)  # Python's own limit, 131,072 characters, is less than a long document


MOST_ROWS, MOST_VALUES, MOST_BYTES = 10_000_000, 200_000_000, 2**32
"""The most rows, values and decoded bytes of a Parquet file that is read. A small file may claim, or hold, far more."""

_ROWS_OF_A_BATCH = 1000


class Row(NamedTuple):
    """A row: its place ("FILE line 7"), and its fields by name."""

    place: str
    fields: dict[str, Any]

    @property
    def in_words(self) -> str:
        """The names of its fields, for error lines."""
        return f"its fields are: {', '.join(map(str, self.fields)) or 'none'}"


def read_table(path: Path) -> list[Row]:
    """Return the rows of a file: .csv, .tsv, .parquet, or any other name for a JSON array or JSON Lines.

    Raises:
        UserError: the file does not exist, or cannot be parsed (which line).
    """
    if why := not_a_file(path):
        raise UserError(f"{path} is not a file ({why}): give a .json, .jsonl, .csv, .tsv or .parquet file")
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


def note_id(places: dict[str, str], value: Any, place: str) -> str:
    """Return an id, a text or a number, as a text; note in `places` where it stands.

    Raises:
        UserError: it is null, empty or something else, or stands at another place already (both are named).
    """
    id = "" if value is None else str(value)
    if isinstance(value, bool | list | dict):
        raise UserError(f"{place} has id={shown(value):.60}: it must be a text or a number")
    if not id.strip():
        raise UserError(f"{place} has an empty id: every row needs its own")
    if id in places:
        raise UserError(f"{place}: id {id} occurs twice (first: {places[id]}): every id must be its own")
    places[id] = place
    return id


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
        with parquet.ParquetFile(path) as file:
            _check_header(path, file.schema_arrow.names)
            _check_claims(path, file.metadata)
            _check_decoded_size(path, file.metadata)
            items = [item for batch in file.iter_batches(_ROWS_OF_A_BATCH) for item in batch.to_pylist()]
    except (ArrowException, OSError, ValueError, TypeError, OverflowError, MemoryError) as error:
        raise UserError(f"{path} cannot be read as Parquet: {error}") from error
    return [Row(f"{path} row {number}", fields) for number, fields in enumerate(items, start=1)]


def _check_claims(path: Path, metadata: Any) -> None:
    """Raise UserError if the file itself says that it has more than is read, in rows, values or bytes."""
    groups = [metadata.row_group(number) for number in range(metadata.num_row_groups)]
    chunks = [group.column(number) for group in groups for number in range(group.num_columns)]
    _check_at_most(path, max(metadata.num_rows, sum(group.num_rows for group in groups)), MOST_ROWS, "rows")
    _check_at_most(path, sum(chunk.num_values for chunk in chunks), MOST_VALUES, "values")
    _check_at_most(
        path, sum(chunk.total_uncompressed_size for chunk in chunks), MOST_BYTES, "bytes without compression"
    )


def _check_decoded_size(path: Path, metadata: Any) -> None:
    """Raise UserError if the texts of the file would take too much memory.

    A text that many rows share stands once in the file. Here it is read as the file holds it, once.
    """
    from pyarrow import parquet

    leaves = [metadata.schema.column(number) for number in range(metadata.num_columns)]
    texts = [leaf.path for leaf in leaves if leaf.physical_type == "BYTE_ARRAY"]
    size = 0
    with parquet.ParquetFile(path, read_dictionary=texts) as file:
        for batch in file.iter_batches(_ROWS_OF_A_BATCH):
            size += sum(map(_decoded_size, batch.columns))
            _check_at_most(path, size, MOST_BYTES, "bytes of text")


def _decoded_size(array: Any) -> int:
    """Return how many bytes the texts of an Arrow array take when each of them is a text of its own."""
    import pyarrow
    import pyarrow.compute as pc

    if isinstance(array, pyarrow.DictionaryArray):
        lengths = pc.cast(pc.binary_length(array.dictionary), pyarrow.int64())  # pyright: ignore[reportAttributeAccessIssue]
        return pc.sum(lengths.take(array.indices)).as_py() or 0  # pyright: ignore[reportAttributeAccessIssue]
    if isinstance(array, pyarrow.StructArray):
        return sum(map(_decoded_size, array.flatten()))
    if isinstance(array, pyarrow.ListArray | pyarrow.LargeListArray):  # a map is a list of pairs
        return _decoded_size(array.flatten())
    return array.nbytes


def _check_at_most(path: Path, found: int, most: int, what: str) -> None:
    if found > most:
        raise UserError(
            f"{path} has at least {found:,} {what}, and at most {most:,} are read: give a part of it, for example "
            "as several files or as JSON Lines"
        )
