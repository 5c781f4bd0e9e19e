"""The directory of a run, and what is written to it."""

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from jaxalign.errors import UserError
from jaxalign.runs.records import append_record, named_errors, write_atomic

WRITTEN = (
    *("summary.json", "checkpoints", "adapter", "figures"),
    *("metrics.jsonl", "validation.jsonl", "questionnaire.jsonl", "generations.jsonl", "answers.jsonl"),
    *("table.csv", "table.md", "report.md"),
    *("rationales.jsonl", "pairs.jsonl", "reference.jsonl", "judged.jsonl", "shapes.jsonl", "sessions.jsonl"),
    *("epochs", "rounds"),
)
"""What a run writes at the top of its directory, beside the config.yaml that marks the directory as ours.

The summary is first: whoever deletes them in this order, and is stopped, leaves no run that seems done.
"""


@dataclass(frozen=True)
class Run:
    """One run's directory. `finished` once summary.json exists, which is written last."""

    path: Path

    @property
    def config(self) -> Path:
        """The resolved configuration, and the identity that the directory was made for."""
        return self.path / "config.yaml"

    @property
    def metrics(self) -> Path:
        """One JSON record a logged step."""
        return self.path / "metrics.jsonl"

    @property
    def validation(self) -> Path:
        """One JSON record a validation: stage, step, validation_loss."""
        return self.path / "validation.jsonl"

    @property
    def questionnaire(self) -> Path:
        """One JSON record a reading of the questionnaire."""
        return self.path / "questionnaire.jsonl"

    @property
    def generations(self) -> Path:
        """One JSON record a sample."""
        return self.path / "generations.jsonl"

    @property
    def summary(self) -> Path:
        """The results, written when all is done."""
        return self.path / "summary.json"

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
        """Hold the directory against a second process of the same run; raises UserError where one holds it."""
        with named_errors(self.path, "lock"):
            file = (self.path / ".lock").open("w")
        with file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise UserError(
                    f"{self.path} is in use by another process: wait for it, or choose a run.dir"
                ) from error
            yield

    def log(self, record: Mapping[str, Any]) -> None:
        """Append a record to metrics.jsonl."""
        append_record(self.metrics, record)

    def finish(self, summary: Mapping[str, Any]) -> None:
        """Write summary.json, which marks the run as finished."""
        write_atomic(self.summary, json.dumps(summary, indent=2, ensure_ascii=False) + "\n")


def _canonical(value: Any) -> str:
    return json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"))


def run_path(
    config_identity: Mapping[str, Any],
    *,
    dir: str | Path | None = None,
    root: str | Path = "outputs",
    name: str = "run",
) -> Path:
    """Return the directory that `open_run` makes or finds, whether it is there or not."""
    digest = hashlib.sha256(_canonical(config_identity).encode()).hexdigest()[:8]
    return Path(dir) if dir is not None else Path(root) / f"{name.replace(os.sep, '-')}-{digest}"


def open_run(
    config_identity: Mapping[str, Any],
    resolved_config: Mapping[str, Any],
    *,
    dir: str | Path | None = None,
    root: str | Path = "outputs",
    name: str = "run",
    overwrite: bool = False,
    hint: str = "use run.overwrite=true or another run.dir",
) -> Run:
    """Make or find the directory of a run, and check that it can be written.

    Args:
        config_identity: what changes the run's numbers; the same identity finds the same directory again.
        resolved_config: the whole configuration, written to config.yaml beside the identity.
        dir: the directory; without it, `root/name-` and eight hexadecimal digits of the identity's SHA-256.
        root: where directories without a `dir` go.
        name: the readable part of the directory's name.
        overwrite: delete what an earlier run wrote there. Files of anyone else stay.
        hint: what to do where the directory is one of another configuration.

    Raises UserError for a directory that no run made, for one of another configuration (naming up to three of the
    differing keys), and for a full disk or a directory that cannot be written.
    """
    path = run_path(config_identity, dir=dir, root=root, name=name)
    run = Run(path)
    with named_errors(path, "use"):
        stored = _stored_identity(run)
        if stored is not None and overwrite:
            with run.locked():  # never from under a process that is still at it
                _delete(run)
        elif stored is not None and _canonical(stored) != _canonical(config_identity):
            raise UserError(f"{_difference(path, stored, config_identity)}; {hint}")
    if run.finished:
        return run
    _probe(run)
    write_atomic(run.config, _config_text(resolved_config, config_identity))
    return run


def _stored_identity(run: Run) -> dict[str, Any] | None:
    """Return the identity that the directory was made for; None for a new or empty directory."""
    if not run.path.exists() or not _entries(run.path):
        return None
    try:
        stored = yaml.safe_load(run.config.read_text())
    except (FileNotFoundError, UnicodeDecodeError, yaml.YAMLError):
        stored = None
    if not isinstance(stored, dict) or not isinstance(stored.get("identity"), dict):
        raise UserError(
            f"{run.path} holds files, but no run made it (its config.yaml is missing or not a run's); "
            "nothing was touched: choose another run.dir"
        )
    return stored["identity"]


def _entries(folder: Path) -> list[str]:
    """Return what stands in a folder, but for what an interrupted write_atomic may leave there."""
    ours = (".config.yaml.", ".probe.")
    return [entry.name for entry in folder.iterdir() if not entry.name.startswith(ours)]


def _delete(run: Run) -> None:
    for name in WRITTEN:
        path = run.path / name
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested keys as dotted ones."""
    found = {}
    for key, value in tree.items():
        found |= flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return found


def _difference(path: Path, stored: Mapping[str, Any], given: Mapping[str, Any]) -> str:
    before, now = flat(stored), flat(json.loads(_canonical(given)))
    keys = [key for key in {**before, **now} if before.get(key) != now.get(key)]
    shown = ", ".join(f"{key} was {before.get(key)!r:.60} and is {now.get(key)!r:.60}" for key in keys[:3])
    more = f" and {len(keys) - 3} more" if len(keys) > 3 else ""
    return f"{path} belongs to another configuration: {shown}{more}"


def _probe(run: Run) -> None:
    """Fail now, not after the training, where 64 KiB cannot be written."""
    probe = run.path / ".probe.tmp"
    write_atomic(probe, bytes(65536))
    probe.unlink()


def _config_text(resolved: Mapping[str, Any], identity: Mapping[str, Any]) -> str:
    def dump(tree: Any) -> str:
        return yaml.safe_dump(tree, sort_keys=False, allow_unicode=True, width=110)

    return (
        "# The whole configuration of this run, defaults included.\n"
        + dump(json.loads(json.dumps(resolved)))
        + "\n# What changes the numbers: a command with the same identity resumes this run.\n"
        + dump({"identity": json.loads(json.dumps(identity))})
    )
