"""The directory of a run, and what is written to it."""

import contextlib
import glob
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jaxalign.errors import UserError
from jaxalign.runs.config_file import FORMAT, config_text, difference, read_config_file, safe_name
from jaxalign.runs.expected import Each, Expected, Maybe, flaw
from jaxalign.runs.lease import LeaseLostError
from jaxalign.runs.lock import LOCK, locked
from jaxalign.runs.mirror import MIRRORED, Mirror
from jaxalign.runs.records import (
    append_record,
    check_writable,
    content_hashes,
    delete_entry,
    digest,
    entries,
    is_leftover,
    named_errors,
    read_json_object,
    write_atomic,
)

SUMMARY, GENERATIONS = "summary.json", "generations.jsonl"


@dataclass(frozen=True)
class Run:
    """The directory of one run. A run is finished once summary.json exists, which is written last.

    `mirror` is where it is copied to; None: nowhere.
    """

    path: Path
    mirror: Mirror | None = None

    @property
    def config(self) -> Path:
        """The resolved configuration, and the identity that the directory was made for."""
        return self.path / "config.yaml"

    @property
    def metrics(self) -> Path:
        """One JSON record for each logged step."""
        return self.path / "metrics.jsonl"

    @property
    def validation(self) -> Path:
        """One JSON record for each validation: stage, step, validation_loss."""
        return self.path / "validation.jsonl"

    @property
    def questionnaire(self) -> Path:
        """One JSON record for each reading of the questionnaire."""
        return self.path / "questionnaire.jsonl"

    @property
    def generations(self) -> Path:
        """One JSON record for each sample."""
        return self.path / GENERATIONS

    @property
    def summary(self) -> Path:
        """The results, written when the run is finished."""
        return self.path / SUMMARY

    @property
    def checkpoints(self) -> Path:
        """The training states to resume from."""
        return self.path / "checkpoints"

    @property
    def adapter(self) -> Path:
        """The adapter in PEFT format."""
        return self.path / "adapter"

    @property
    def figures(self) -> Path:
        """The figures."""
        return self.path / "figures"

    @property
    def finished(self) -> bool:
        """Whether there is nothing left to do."""
        return self.summary.exists()

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Lock the directory and its mirror against a second process. At the end, the run is copied to the mirror.

        Raises:
            UserError: another process holds a lock; the mirror has a newer state, or cannot be used; or the directory
                was deleted meanwhile.
        """
        with contextlib.ExitStack() as stack:
            stack.enter_context(locked(self.path))
            if self.mirror is not None:
                stack.enter_context(self.mirror.held(self.path))
                if self.mirror.is_newer(self.path):
                    raise UserError(f"{self.mirror.shown(self.path)} was changed just now: type the command again")
            try:
                yield
            except BaseException:
                self.save_copy()
                raise
            self.save_copy(last=True)

    def fetch(self) -> None:
        """Fetch the state of the run in the mirror, if there is one and it is newer.

        Raises:
            UserError: the mirror is in use, damaged or cannot be read; or both hold the run, in states of their own.
        """
        if self.mirror is None or not self.mirror.is_newer(self.path):
            return
        with named_errors(self.path, "use"):
            self.path.mkdir(parents=True, exist_ok=True)
        with locked(self.path), self.mirror.held(self.path):
            if self.mirror.is_newer(self.path):
                self.mirror.fetch(self.path)

    def save_copy(self, *, last: bool = False) -> None:
        """Copy what changed to the mirror, if there is one. The run must be `locked`.

        If the mirror cannot be used, a line says so, and the next copy tries again. The `last` one raises UserError.
        """
        names = None if self.mirror is None else (read_config_file(self.config) or {}).get("run_files")
        if self.mirror is None or names is None:
            return
        try:
            self.mirror.copy(self.path, [self.config.name, SUMMARY, *names])
        except LeaseLostError:
            raise
        except UserError as error:
            if last:
                raise
            self.mirror.say(f"not copied, and tried again with the next copy: {error}")

    def log(self, record: Mapping[str, Any]) -> None:
        """Append a record to metrics.jsonl."""
        append_record(self.metrics, record)

    def finish(self, summary: Mapping[str, Any], files: Sequence[str] = ()) -> None:
        """Write summary.json, which marks the run as finished.

        It gets a hash of the adapter's files, without its card, and of each of `files` that exists; `check_files`
        compares them.
        """
        found = [file for kind in ("safetensors", "json") for file in sorted(self.adapter.glob(f"*.{kind}"))]
        hashes = content_hashes(self.path, [*files, *(str(file.relative_to(self.path)) for file in found)])
        kept = {**summary, "files": hashes} if hashes else summary
        write_atomic(self.summary, json.dumps(kept, indent=2, ensure_ascii=False) + "\n")

    def results(self, mend: str = "", /, **fields: Expected) -> dict[str, Any]:
        """Return the content of summary.json.

        Args:
            mend: what to do if it is damaged; "" says how to write it anew.
            fields: the keys that it must have, and what they must be.

        Raises:
            UserError: it cannot be read, or has a key that is not as it must be.
        """
        return read_json_object(self.summary, mend or self._again, **fields)

    def hashes(self, mend: str = "") -> dict[str, str]:
        """Return the hashes of the files by name, as `finish` wrote them; for `mend` and the errors see `results`."""
        return self.results(mend, files=Maybe(Each(str))).get("files") or {}

    def check_files(self, mend: str = "") -> None:
        """Raise UserError if summary.json is damaged, or a file was changed or lost (for `mend` see `results`)."""
        before = self.hashes(mend)
        there = content_hashes(self.path, before)
        for name, one in before.items():
            if there.get(name) != one:
                how = "was changed" if name in there else "is missing"
                raise UserError(f"{self.path / name} {how} since the run was finished; {mend or self._again}")

    @property
    def _again(self) -> str:
        return f"remove {self.summary}, and type the run's own command again, which writes it anew"


def run_path(
    config_identity: Mapping[str, Any],
    *,
    dir: str | Path | None = None,
    root: str | Path = "outputs",
    name: str = "run",
) -> Path:
    """Return the directory that `open_run` makes or finds; it need not exist."""
    return Path(dir) if dir is not None else Path(root) / f"{safe_name(name)}-{digest(config_identity, 8)}"


def open_run(
    config_identity: Mapping[str, Any],
    resolved_config: Mapping[str, Any],
    *,
    files: Sequence[str] = (),
    dir: str | Path | None = None,
    root: str | Path = "outputs",
    name: str = "run",
    overwrite: bool = False,
    mirror: Mirror | None = None,
    hint: str = "use run.overwrite=true or another run.dir",
) -> Run:
    """Make or find the directory of a run, and check that it can be written.

    Args:
        config_identity: all that changes the run's numbers; the same identity finds the same directory again.
        resolved_config: the whole configuration, written to config.yaml beside the identity.
        files: what the run writes at the top of its directory, beside config.yaml and summary.json.
        dir: the directory; None: `root/name-` and eight hexadecimal digits of the identity's SHA-256.
        root: the folder for directories that `dir` does not name.
        name: the readable part of the directory's name.
        overwrite: whether to delete the files that an earlier run wrote there. Other files stay.
        mirror: where the run is copied to. Its state there is fetched first if it is newer.
        hint: the advice in the error line if the directory belongs to another configuration.

    Raises:
        UserError: the directory was made by no run, by another version of jaxalign, or for another configuration (the
            line names up to three keys that differ); the disk is full; or the directory cannot be written.
    """
    path = run_path(config_identity, dir=dir, root=root, name=name)
    run = Run(path, mirror)

    def stored() -> dict[str, Any] | None:
        found = _stored(run)
        if found is not None and not overwrite and digest(found["identity"]) != digest(config_identity):
            raise UserError(f"{difference(path, found['identity'], config_identity)}; {hint}")
        return found

    if not overwrite:
        run.fetch()
    with named_errors(path, "use"):
        if stored() is not None and run.finished and not overwrite:
            if mirror is not None and not mirror.holds_finished(path.parent, glob.escape(path.name)):
                with run.locked():  # which copies it: the process that finished it was killed before that
                    return run
            return run
        path.mkdir(parents=True, exist_ok=True)
        # Two processes may begin together: what one of them finds must not change before it has written its own.
        with locked(run.path):
            found = stored()
            if found is not None and overwrite:
                _delete(run, [*found["run_files"], *files])
            if mirror is not None and overwrite:
                mirror.supersede(path)
            if not run.finished:
                _delete(run, [entry.name for entry in path.iterdir() if is_leftover(entry.name)])
                check_writable(path)
                write_atomic(run.config, config_text(resolved_config, config_identity, files))
    return run


def _stored(run: Run) -> dict[str, Any] | None:
    """Return the config.yaml of a directory; None for a new or empty directory."""
    if set(entries(run.path)) <= {LOCK, MIRRORED}:  # they are written before config.yaml
        return None
    stored = read_config_file(run.config)
    if stored is None:
        raise UserError(
            f"{run.path} holds files, but no run made it (its config.yaml is missing or damaged, or no run wrote it); "
            "nothing was changed: choose another run.dir"
        )
    if stored.get("run_format") != FORMAT or flaw(stored.get("run_files"), [str]) is not None:
        raise UserError(
            f"{run.path} was made by another version of jaxalign, and this version does not resume it or write over "
            "it; it can still be given as adapter=, and exported: choose another run.dir, or delete the folder yourself"
        )
    return stored


def _delete(run: Run, files: Sequence[str]) -> None:
    # The summary goes first: if this process is stopped before the end, the run does not look finished.
    for name in (SUMMARY, *files):
        name = Path(name).name  # what is not in the directory stays
        if name in ("", ".."):
            continue
        delete_entry(run.path / name)
