"""Files in a bucket of an object store, or in a mounted folder: read, written, listed and deleted.

An object store has no append, no rename and no lock. Each file in it is written whole; so is a file in a folder here.
"""

import contextlib
import hashlib
import io
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from etils import epath
from fsspec.config import conf

from jaxalign.errors import UserError
from jaxalign.runs.records import UNFINISHED, atomic_file, is_leftover

EXTRAS = {"gs": "gcs", "s3": "s3"}
"""The extra of jaxalign that each kind of bucket needs, by the scheme of its address."""

_COPIED = 1 << 20  # bytes at a time


@dataclass(frozen=True)
class Bucket:
    """A folder of files: `gs://bucket/path`, `s3://bucket/path`, or a folder that is mounted here.

    Names of files are relative to it. Every method raises UserError if the folder cannot be used: a missing extra, no
    rights, no network.
    """

    url: str

    def __post_init__(self):
        if self.is_remote:
            # A listing that is kept would hide what other machines write.
            for protocol in ("gcs", "s3"):
                conf.setdefault(protocol, {})["use_listings_cache"] = False
            logging.getLogger("gcsfs").setLevel(logging.CRITICAL)  # it logs pages, and we write one line

    @property
    def is_remote(self) -> bool:
        """Whether it is a bucket, and not a folder."""
        return "://" in self.url

    @property
    def scheme(self) -> str:
        """`gs` or `s3`; "" for a folder."""
        return self.url.partition("://")[0] if self.is_remote else ""

    def shown(self, name: str) -> str:
        """Return the address of a file."""
        return f"{self.url.rstrip('/')}/{name}"

    def read(self, name: str) -> bytes | None:
        """Return the content of a file; None if there is none of this name."""
        with self._errors(name, "read"), contextlib.suppress(FileNotFoundError):
            return self._path(name).read_bytes()
        return None

    def write(self, name: str, content: bytes) -> None:
        """Write a file."""
        self._copy(io.BytesIO(content), name)

    def upload(self, file: Path, name: str) -> str:
        """Copy a local file, and return the SHA-256 of what was copied."""
        with file.open("rb") as source:
            return self._copy(source, name)

    def download(self, name: str, file: Path) -> str | None:
        """Copy a file to a local one, and return the SHA-256 of what was copied; None if there is none of this name."""
        with self._errors(name, "read"):
            try:
                with self._path(name).open("rb") as source, atomic_file(file) as target:
                    return _copied(source, target)  # type: ignore[arg-type]
            except FileNotFoundError:
                return None

    def delete(self, name: str) -> None:
        """Delete a file, if there is one."""
        with self._errors(name, "delete"):
            self._path(name).unlink(missing_ok=True)

    def names(self, folder: str) -> list[str]:
        """Return the names of what is in a folder, without files that are not complete; none if it does not exist."""
        with self._errors(folder, "list"), contextlib.suppress(FileNotFoundError):
            found = {path.name for path in self._path(folder).iterdir()}
            return sorted(name for name in found if name and not is_leftover(name))
        return []

    def probe(self) -> None:
        """Write a small file and delete it, so that what does not work fails before any long work."""
        if not self.is_remote and not Path(self.url).is_dir():
            raise UserError(f"run.mirror={self.url} is no folder: mount or make it first, or give gs://BUCKET/PATH")
        name = f".probe{UNFINISHED}"
        self.write(name, b"jaxalign")
        self.delete(name)

    def _path(self, name: str) -> epath.Path:
        return epath.Path(self.url) / name

    def _copy(self, source: BinaryIO, name: str) -> str:
        with self._errors(name, "write"), contextlib.ExitStack() as stack:
            if self.is_remote:
                target = stack.enter_context(self._path(name).open("wb"))  # appears whole when it is closed
            else:
                target = stack.enter_context(atomic_file(Path(self.url) / name, "give another run.mirror"))
            return _copied(source, target)  # type: ignore[arg-type]

    @contextlib.contextmanager
    def _errors(self, name: str, task: str) -> Iterator[None]:
        try:
            yield
        except UserError:
            raise
        except ImportError as error:
            extra = EXTRAS[self.scheme]
            raise UserError(f"run.mirror={self.url} needs another package: pip install 'jaxalign[{extra}]'") from error
        except Exception as error:  # each client of an object store has errors of its own, without a common type
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            hint = "check the address, your rights (gcloud auth application-default login, AWS_PROFILE) and the network"
            raise UserError(
                f"cannot {task} {self.shown(name)}: {reason}; {hint if self.is_remote else 'give another run.mirror'}"
            ) from error


def _copied(source: BinaryIO, target: BinaryIO) -> str:
    found = hashlib.sha256()
    while block := source.read(_COPIED):
        found.update(block)
        target.write(block)
    return found.hexdigest()
