"""Files that are whole or not there, and records that are appended."""

import contextlib
import hashlib
import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from jaxalign.errors import UserError

HINT = "free space or choose another run.dir"


@contextlib.contextmanager
def named_errors(path: Path, task: str, hint: str = HINT) -> Iterator[None]:
    """Turn a full disk, a read-only folder and their like into one line that names the path."""
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
    """Write a file so that it is there whole or not at all, also after a power cut.

    Raises UserError, naming the path and what to do (`hint`), where the disk is full or the folder cannot be written.
    """
    path = Path(path)
    with named_errors(path, "write", hint):
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        try:
            with os.fdopen(descriptor, "wb") as file:
                os.fchmod(file.fileno(), 0o644)  # mkstemp makes private files; results are to be shared
                file.write(data.encode() if isinstance(data, str) else data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
            raise
        _sync_folder(path.parent)


def append_record(path: str | Path, *records: Mapping[str, Any]) -> None:
    """Append JSON lines, on the disk when this returns. A line torn by an earlier crash is cut off first."""
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
    """Return the length of the file up to and with its last newline."""
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
    """Read JSON lines; none where there is no file. The last line may be torn: it is left out.

    Raises UserError for any other line that is not JSON.
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
    """Return the first `length` hexadecimal digits of a SHA-256 over a value's JSON, its keys sorted.

    >>> digest({"b": 1, "a": [2.0, None]}) == digest({"a": [2.0, None], "b": 1})
    True
    """
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:length]


def read_json(path: str | Path) -> Any:
    """Return what a JSON file holds; UserError, naming it, where it is not there or is none."""
    with named_errors(Path(path), "read"):
        try:
            return json.loads(Path(path).read_text(encoding="utf-8"))
        except ValueError as error:
            raise UserError(f"{path} is not JSON ({error}); remove it, and type the command again") from error
