"""Files that are written whole or not at all, and files of records that grow by appending."""

import contextlib
import hashlib
import json
import operator
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from jaxalign.errors import UserError
from jaxalign.runs.expected import Expected, as_expected, column_is, damage
from jaxalign.runs.reading import parse_json, parse_json_lines, read_bytes, read_text

HINT = "free space or choose another run.dir"

UNFINISHED = ".unfinished"
"""The end of the name of everything that is being written and has not got its own name yet."""


def is_leftover(name: str) -> bool:
    """Return whether a file or folder of this name is what a killed process left of a write."""
    return name.startswith(".") and name.endswith(UNFINISHED)


def entries(folder: Path) -> list[str]:
    """Return the names in a folder, without leftovers; none if nothing has the folder's name.

    Raises:
        OSError: it is not a folder, or it is a symbolic link that leads nowhere.
    """
    there = folder.exists() or folder.is_symlink()
    return [entry.name for entry in folder.iterdir() if not is_leftover(entry.name)] if there else []


def delete_entry(path: Path) -> None:
    """Delete a file, a link, or a folder with all that is in it; nothing if there is none."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _prefix(name: str) -> str:
    return f".{name[:40]}."  # short, because a file system limits the length of a name


@contextlib.contextmanager
def scratch_folder(place: Path, name: str) -> Iterator[Path]:
    """Give a temporary folder in the folder `place`. What is made in it is moved to `name` at the end."""
    with tempfile.TemporaryDirectory(UNFINISHED, _prefix(name), place) as folder:
        yield Path(folder)


@contextlib.contextmanager
def filled_folder(folder: Path) -> Iterator[Path]:
    """Give a temporary folder to fill, whose files become those of `folder` if there is no error.

    A new folder appears whole or not at all. A folder that is there already stays what it is, for example a mount
    point, or the place to which a symbolic link leads.

    Raises:
        OSError: the disk is full or the folder cannot be written.
    """
    there = folder.is_dir()
    folder.parent.mkdir(parents=True, exist_ok=True)
    with scratch_folder(folder if there else folder.parent, folder.name) as scratch:
        filling = scratch / "new"
        filling.mkdir()
        yield filling
        if there:
            for entry in sorted(filling.iterdir()):
                os.replace(entry, folder / entry.name)
        else:
            os.replace(filling, folder)


@contextlib.contextmanager
def named_errors(path: Path, task: str, hint: str = HINT) -> Iterator[None]:
    """Turn an OSError, such as a full disk or a read-only folder, into a UserError that names the path.

    `task` is a verb, such as "write", and `hint` says what to do.
    """
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        if path.is_symlink() and not path.exists():
            reason = f"it is a symbolic link to {os.readlink(path)}, which does not exist"
        raise UserError(f"cannot {task} {path}: {reason}; {hint}") from error


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_atomic(path: str | Path, data: str | bytes, hint: str = HINT) -> None:
    """Write a file so that it exists whole or not at all; for the errors see `atomic_file`."""
    with atomic_file(Path(path), hint) as file:
        file.write(data.encode() if isinstance(data, str) else data)


def check_writable(folder: Path, hint: str = HINT) -> None:
    """Write 64 KiB to a folder, which is made if it is not there, and delete them; for the errors see `atomic_file`."""
    with named_errors(folder, "write to", hint):
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(bytes(65536))
            file.flush()
            os.fsync(file.fileno())  # only then a full disk of another machine says so


@contextlib.contextmanager
def atomic_file(path: Path, hint: str = HINT) -> Iterator[BinaryIO]:
    """Give a file to write, which appears as `path` whole or not at all, even after a power cut.

    Raises:
        UserError: the disk is full or the folder cannot be written; `hint` says what to do.
    """
    with named_errors(path, "write", hint):
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(UNFINISHED, _prefix(path.name), path.parent)
        try:
            with os.fdopen(descriptor, "wb") as file:
                os.fchmod(file.fileno(), 0o644)  # mkstemp makes private files, but others may read results
                yield file
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
            raise
        _sync_folder(path.parent)


def _lines(records: Iterable[Mapping[str, Any]]) -> str:
    return "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)


def write_records(path: str | Path, records: Iterable[Mapping[str, Any]]) -> None:
    """Write records as the JSON lines of a file, whole or not at all; for the errors see `atomic_file`."""
    write_atomic(path, _lines(records))


def append_record(path: str | Path, *records: Mapping[str, Any]) -> None:
    """Append records as JSON lines, which are safely on the disk when this function returns.

    An incomplete last line, which an earlier crash left, is removed first.
    """
    path, lines = Path(path), _lines(records)
    with named_errors(path, "write"):
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a+b") as file:
            file.truncate(_whole_length(file))
            file.write(lines.encode())
            file.flush()
            os.fsync(file.fileno())


def _whole_length(file: Any) -> int:
    """Return the length of the file up to its last newline, in bytes, newline included."""
    end = file.seek(0, os.SEEK_END)
    while end > 0:
        start = max(0, end - 65536)
        file.seek(start)
        newline = file.read(end - start).rfind(b"\n")
        if newline >= 0:
            return start + newline + 1
        end = start
    return 0


def read_records(
    path: str | Path, hint: str = "remove the line, and type the command again", /, **fields: Expected
) -> list[dict[str, Any]]:
    """Return the records of a JSON Lines file, or none if the file does not exist.

    An incomplete last line, without its newline, is left out.

    Args:
        path: the file.
        hint: what to do if a line is damaged.
        fields: the fields that every record must have, and what they must be.

    Raises:
        UserError: the file cannot be read, or any other line is not a JSON object, has a field that is not as it must
            be, or holds what `parse_json` refuses.
    """
    path = Path(path)
    if not path.exists():
        return []
    data = read_bytes(path, hint="remove it, or choose another run.dir")
    if (found := _whole_records(data, fields)) is not None:
        return found
    *whole, _torn = data.split(b"\n")
    return [parse_record(line, path, number, hint, fields) for number, line in enumerate(whole, start=1)]


def _whole_records(data: bytes, fields: Mapping[str, Expected]) -> list[dict[str, Any]] | None:
    """Return the records of a file all of whose lines are as they should be; None if one is not (see `parse_record`).

    Fields are looked at column by column, which takes a fraction of the time that it takes record by record.
    """
    try:
        found = parse_json_lines(data[: data.rfind(b"\n") + 1].decode())
        if found is None or not set(map(type, found)) <= {dict}:
            return None
        whole = all(column_is(map(operator.itemgetter(name), found), kind) for name, kind in fields.items())
    except (UnicodeDecodeError, KeyError, TypeError):  # TypeError: a list or an object in the place of a text
        return None
    return found if whole else None


def parse_record(
    line: bytes, path: str | Path, number: int, hint: str, fields: Mapping[str, Expected]
) -> dict[str, Any]:
    """Return the record in line `number` of a JSON Lines file.

    Raises:
        UserError: it is not a JSON object, has a field that is not as it must be, or holds what `parse_json` refuses;
            `hint` says what to do.
    """
    try:
        text = line.decode()
    except UnicodeDecodeError as error:
        raise UserError(f"{path} line {number} is not UTF-8 text; {hint}") from error
    record = parse_json(text, path, number, finite=False, hint=hint)
    if problem := damage(record, fields):
        raise UserError(f"{path}, line {number}: {problem}; {hint}")
    return record


def digest(value: Any, length: int = 16) -> str:
    """Return the first `length` hexadecimal digits of the SHA-256 of a value as JSON with sorted keys.

    >>> digest({"b": 1, "a": [2.0, None]}) == digest({"a": [2.0, None], "b": 1})
    True
    """
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:length]


def read_json_object(path: Path, hint: str, /, **fields: Expected) -> dict[str, Any]:
    """Return the JSON object in a file.

    Args:
        path: the file.
        hint: what to do if it is missing or damaged.
        fields: the keys that it must have, and what they must be.

    Raises:
        UserError: the file cannot be read, is not a JSON object, or has a key that is not as it must be.
    """
    return read_json(path, hint, fields)


def read_json(path: Path, hint: str, expected: Expected) -> Any:
    """Return the JSON value in a file; for the arguments and the errors see `read_json_object`."""
    return as_expected(parse_json(read_text(path, hint=hint), path, finite=False, hint=hint), expected, path, hint)


def file_hash(path: Path) -> str:
    """Return the SHA-256 of a file's bytes, as hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def content_hashes(folder: Path, names: Iterable[str]) -> dict[str, str]:
    """Return a hash of each of the files that exists, by its name in the folder.

    In a file of records (.jsonl), the order of the lines does not matter.
    """
    found = {}
    for name in names:
        path = folder / name
        if path.is_file() and path.suffix == ".jsonl":
            found[name] = hashlib.sha256(b"\n".join(sorted(path.read_bytes().splitlines()))).hexdigest()
        elif path.is_file():
            found[name] = file_hash(path)
    return found
