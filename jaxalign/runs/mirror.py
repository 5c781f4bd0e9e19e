"""The copy of a run's directory in a bucket or a mounted folder, from which another machine goes on.

A run works in its local directory. A copy of it is a manifest, which is written last, and the files that the manifest
lists with sizes and digests. A changed file is a new file in the mirror, and what no manifest lists any more is deleted
after that. So a copy that was cut changes nothing: the manifest from before, and all of its files, are still there.
"""

import contextlib
import json
import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath
from typing import Any

from jaxalign.errors import UserError
from jaxalign.runs.bucket import Bucket
from jaxalign.runs.expected import Each, Expected, as_expected, flaw
from jaxalign.runs.lease import leased
from jaxalign.runs.progress import print_line
from jaxalign.runs.reading import parse_json
from jaxalign.runs.records import (
    delete_entry,
    entries,
    file_hash,
    is_leftover,
    named_errors,
    read_json_object,
    scratch_folder,
    write_atomic,
)

MIRRORED = ".mirror.json"
"""The file in a run's directory that says which states of the mirror it holds: `revisions`, none during a fetch."""

_LISTING, _LEASE, _FILES = "listing.json", "lease.json", "files"


@dataclass(eq=False)
class Mirror:
    """The copies of the runs in a local folder: of the run `local/NAME` in `url/NAME`.

    Attributes:
        url: a bucket's address, or a mounted folder.
        local: the local folder.
        say: prints a line.
    """

    url: str
    local: Path
    say: Callable[[str], None] = print_line
    programs: "SharedPrograms | None" = None
    _checks: dict[Path, Callable[[], None]] = field(default_factory=dict)
    _digests: dict[tuple[Path, int, int], str] = field(default_factory=dict)

    @property
    def bucket(self) -> Bucket:
        """Where the copies are."""
        return Bucket(self.url)

    def name(self, path: Path) -> str:
        """Return the name of a run's folder in the mirror."""
        return path.absolute().relative_to(self.local.absolute()).as_posix()

    def shown(self, path: Path) -> str:
        """Return the address of a run's copy."""
        return self.bucket.shown(self.name(path))

    def is_newer(self, path: Path) -> bool:
        """Return whether the mirror holds a state of a run that the local directory does not hold.

        Raises:
            UserError: both hold the run, and it is not known which one is newer; or the mirror cannot be used.
        """
        listing = self._listing(self.name(path))
        if listing is None:
            return False
        kept = self._kept(path)
        if kept is not None:
            return listing["revision"] not in kept
        if (path / "config.yaml").is_file():
            raise UserError(
                f"{path} and {self.shown(path)} both hold this run, and it is not known which is newer: delete one of "
                "them, or give another run.mirror"
            )
        return not set(entries(path)) - {".lock"}  # else it is no run's directory, and is refused as such

    def holds_finished(self, folder: Path, pattern: str) -> bool:
        """Return whether the mirror holds a finished run in a local folder, with a name of this pattern."""
        place = self.name(folder)
        names = [name for name in self.bucket.names(place) if fnmatch(name, pattern)]
        return any("summary.json" in (self._listing(f"{place}/{name}") or {"files": {}})["files"] for name in names)

    def configs(self, pattern: str) -> Iterator[tuple[str, str]]:
        """Yield address and text of the config.yaml of each run whose name matches a pattern."""
        for name in self.bucket.names(""):
            listing = self._listing(name) if fnmatch(name, pattern) else None
            if listing is not None and "config.yaml" in listing["files"]:
                content = self.bucket.read(f"{name}/{_FILES}/{listing['files']['config.yaml']['file']}")
                yield self.bucket.shown(name), (content or b"").decode(errors="replace")

    @contextlib.contextmanager
    def held(self, path: Path) -> Iterator[None]:
        """Keep other processes from the copy of a run, which is only then read or written.

        Raises:
            UserError: another process uses it, or the mirror cannot be used.
        """
        with leased(self.bucket, f"{self.name(path)}/{_LEASE}", self.shown(path), self.say) as check:
            self._checks[path] = check
            try:
                yield
            finally:
                del self._checks[path]

    def fetch(self, path: Path) -> None:
        """Put the state of a run in the mirror into the local directory; its files there are replaced.

        Raises:
            UserError: a file in the mirror is missing or damaged.
        """
        listing = self._listing(self.name(path))
        assert listing is not None
        self._keep(path)
        with scratch_folder(path.parent, path.name) as scratch:
            for name, entry in listing["files"].items():
                found = self.bucket.download(f"{self.name(path)}/{_FILES}/{entry['file']}", scratch / name)
                if found != entry["sha256"]:
                    how = "is missing" if found is None else "is damaged"
                    raise UserError(
                        f"{self.shown(path)}: {name} {how}; delete this folder of the mirror to begin anew, or give "
                        "another run.mirror"
                    )
            with named_errors(path, "write"):
                _replace(path, scratch, listing["names"])
        self._keep(path, listing["revision"])
        self.say(f"fetched {len(listing['files'])} files from {self.shown(path)} (saved {listing['saved']})")

    def supersede(self, path: Path) -> None:
        """Let the local directory count as newer than the mirror, as for a run that begins anew."""
        listing = self._listing(self.name(path))
        if listing is not None:
            self._keep(path, listing["revision"])

    def copy(self, path: Path, names: Sequence[str]) -> None:
        """Copy what changed in a run's directory since the last copy, while the run is `held`.

        Args:
            path: the run's directory.
            names: the files and folders of the run in it.

        Raises:
            UserError: another process has taken the mirror over, or the mirror cannot be used.
        """
        self._checks[path]()
        if self.programs is not None:
            self.programs.share()
        place, before = self.name(path), self._listing(self.name(path))
        files = {file.relative_to(path).as_posix(): self._entry(file) for file in _files(path, names)}
        if before is not None and files == before["files"]:
            return self._keep(path, before["revision"])
        there = set(self.bucket.names(f"{place}/{_FILES}"))
        for name, entry in files.items():
            if entry["file"] not in there:
                copied = self.bucket.upload(path / name, f"{place}/{_FILES}/{entry['file']}")
                if copied != entry["sha256"]:
                    raise UserError(f"{path / name} changed while it was copied to {self.shown(path)}")
        saved = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        listing = {"revision": secrets.token_hex(8), "saved": saved, "names": sorted(names), "files": files}
        # If this process is killed before the last line here, either revision may be the mirror's.
        self._keep(path, *(self._kept(path) or ()), listing["revision"])
        self.bucket.write(f"{place}/{_LISTING}", json.dumps(listing, indent=1, sort_keys=True).encode())
        self._keep(path, listing["revision"])
        for name in there - {entry["file"] for entry in files.values()}:
            self.bucket.delete(f"{place}/{_FILES}/{name}")

    def _entry(self, file: Path) -> dict[str, Any]:
        state = file.stat()
        key = (file, state.st_size, state.st_mtime_ns)
        if key not in self._digests:
            self._digests[key] = file_hash(file)
        found = self._digests[key]
        return {"file": f"{found[:16]}-{file.name}", "size": state.st_size, "sha256": found}

    def _listing(self, name: str) -> dict[str, Any] | None:
        content = self.bucket.read(f"{name}/{_LISTING}")
        if content is None:
            return None
        where, hint = self.bucket.shown(f"{name}/{_LISTING}"), "delete it to begin anew, or give another run.mirror"
        return as_expected(parse_json(content.decode(errors="replace"), where, hint=hint), _LISTED, where, hint)

    def _kept(self, path: Path) -> list[str] | None:
        """Return the revisions of this mirror that the local directory holds or has gone beyond; None: not known."""
        try:
            found = read_json_object(path / MIRRORED, "", mirror=str, revisions=list)
        except UserError:
            return None
        return found["revisions"] if found["mirror"] == self.shown(path) else None

    def _keep(self, path: Path, *revisions: str) -> None:
        write_atomic(path / MIRRORED, json.dumps({"mirror": self.shown(path), "revisions": revisions}) + "\n")


@dataclass
class SharedPrograms:
    """The compiled programs of a local folder, in a folder of a mirror that all runs share.

    Their names are hashes of what was compiled, so a file is never changed. Programs for other devices or processors
    are in other folders.

    Attributes:
        bucket: the mirror.
        place: the folder in it.
        local: the local folder.
    """

    bucket: Bucket
    place: str
    local: Path
    _known: set[str] = field(default_factory=set)

    def fetch(self) -> None:
        """Copy the programs that are not here yet."""
        self._known = set(entries(self.local))
        for name in self.bucket.names(self.place):
            if name not in self._known and _is_inside(name):
                self.bucket.download(f"{self.place}/{name}", self.local / name)
                self._known.add(name)

    def share(self) -> None:
        """Copy the programs that were compiled here since then."""
        for name in sorted(set(entries(self.local)) - self._known):
            self.bucket.upload(self.local / name, f"{self.place}/{name}")
            self._known.add(name)


def _is_inside(name: Any) -> bool:
    """Return whether a name from a mirror stays inside the run's directory."""
    if not isinstance(name, str):
        return False
    path = PurePosixPath(name)
    return bool(path.parts) and not path.is_absolute() and ".." not in path.parts and "\0" not in name


def _are_files(found: Any) -> bool:
    """Return whether they are files with their entries, all of which stay inside the run's directory."""
    names = isinstance(found, dict) and all(map(_is_inside, found))
    return names and flaw(found, Each({"file": _is_inside, "sha256": str})) is None


_LISTED: Expected = {"revision": str, "saved": str, "names": [_is_inside], "files": _are_files}
"""What the list of a copy must hold."""


def _files(path: Path, names: Sequence[str]) -> list[Path]:
    """Return the files of a run, without what is not written whole yet."""
    found = []
    for top in (path / name for name in names if _is_inside(name)):
        for file in sorted(top.rglob("*")) if top.is_dir() else [top]:
            if file.is_file() and not any(map(is_leftover, file.relative_to(path).parts)):
                found.append(file)
    return found


def _replace(path: Path, scratch: Path, names: Sequence[str]) -> None:
    """Move what is in a folder to a run's directory, whose files of these names go first.

    config.yaml makes it a run: it is deleted first and written last. summary.json is the next to it both times.
    """
    ends = ["summary.json", "config.yaml"]
    for name in [*reversed(ends), *(name for name in names if name not in ends)]:
        delete_entry(path / name)
    come = [name for name in entries(scratch) if name not in ends]
    for name in [*come, *(name for name in ends if (scratch / name).exists())]:
        (scratch / name).rename(path / name)
