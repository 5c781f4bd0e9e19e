"""Files that are written whole or not at all, and files of records that grow by appending."""

import contextlib
import hashlib
import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from jaxalign.errors import UserError

HINT = "free space or choose another run.dir"


@contextlib.contextmanager
def named_errors(path: Path, task: str, hint: str = HINT) -> Iterator[None]:
    """Turn an OSError, such as a full disk or a read-only folder, into a UserError that names the path.

    `task` is a verb, such as "write", and `hint` says what to do.
    """
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
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


@contextlib.contextmanager
def atomic_file(path: Path, hint: str = HINT) -> Iterator[BinaryIO]:
    """Give a file to write, which appears as `path` whole or not at all, even after a power cut.

    Raises:
        UserError: the disk is full or the folder cannot be written; `hint` says what to do.
    """
    with named_errors(path, "write", hint):
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
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


def append_record(path: str | Path, *records: Mapping[str, Any]) -> None:
    """Append records as JSON lines, which are safely on the disk when this function returns.

    An incomplete last line, which an earlier crash left, is removed first.
    """
    path = Path(path)
    lines = "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)
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


def read_records(path: str | Path) -> list[dict[str, Any]]:
    """Return the records of a JSON Lines file, or none if the file does not exist.

    An incomplete last line, without its newline, is left out.

    Raises:
        UserError: any other line is not JSON.
    """
    path = Path(path)
    if not path.exists():
        return []
    with named_errors(path, "read"):
        *whole, _torn = path.read_bytes().split(b"\n")
    records = []
    for number, line in enumerate(whole, start=1):
        try:
            records.append(json.loads(line))
        except ValueError as error:
            raise UserError(f"{path}, line {number}: not JSON; remove the line, or the file") from error
    return records


def digest(value: Any, length: int = 16) -> str:
    """Return the first `length` hexadecimal digits of the SHA-256 of a value as JSON with sorted keys.

    >>> digest({"b": 1, "a": [2.0, None]}) == digest({"a": [2.0, None], "b": 1})
    True
    """
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:length]


def read_json(path: str | Path) -> Any:
    """Return the content of a JSON file; UserError if the file is missing or is not JSON."""
    with named_errors(Path(path), "read"):
        try:
            return json.loads(Path(path).read_text(encoding="utf-8"))
        except ValueError as error:
            raise UserError(f"{path} is not JSON ({error}); remove it, and type the command again") from error


def read_json_object(path: Path, hint: str) -> dict[str, Any]:
    """Return the JSON object in a file; UserError if there is none, and `hint` says what to do."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path} cannot be read as JSON ({error}); {hint}") from error
    if not isinstance(found, dict):
        raise UserError(f"{path} is not a JSON object; {hint}")
    return found


def file_hash(path: Path) -> str:
    """Return the SHA-256 of a file's bytes, as hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
