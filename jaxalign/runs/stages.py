"""The stages of a job as runs of their own: where each is, whether it is to be done now, and what it took.

A stage is named by what decides its numbers, so jobs that differ only in what comes later share it, and each resumes by
itself. Nothing here knows what the stages do.
"""

import dataclasses
import glob
import hashlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from jaxalign.errors import UserError
from jaxalign.runs.directory import Run, open_run, run_path
from jaxalign.runs.progress import duration
from jaxalign.runs.records import append_record, read_json, read_records

SESSIONS = "sessions.jsonl"
"""What each process took that worked on a stage."""


@dataclasses.dataclass
class Stages:
    """The stages of one job.

    Attributes:
        names: all there are, in their order. A stage may be done again, as NAME-2 and so on.
        asked: the one that is to be done, or `all`.
        config: the whole configuration, plain, for each stage's config.yaml.
        dir: the job's own directory, where it has a name of its own: its stages stand in it. None: they stand under
            `root`, where other jobs find them too.
        root: see dir.
        label: what the directories of shared stages are called, behind the stage's name.
        overwrite: whether what is asked for is done anew.
        clock: what was spent so far, by name: `seconds` is one of them. A stage's summary has the differences.
        say: prints a line.
        in_words: what a stage's summary counted, in words.
        found: the stages that were done or read, by name.
    """

    names: Sequence[str]
    asked: str
    config: Mapping[str, Any]
    dir: str | None
    root: str
    label: str
    overwrite: bool
    clock: Callable[[], Mapping[str, float]]
    say: Callable[[str], None]
    in_words: Callable[[Mapping[str, Any]], list[str]]
    found: dict[str, Run] = dataclasses.field(default_factory=dict)
    _did_one: bool = False

    def do(
        self,
        name: str,
        identity: Mapping[str, Any],
        work: Callable[[Run], dict[str, Any]],
        *,
        files: Sequence[str] = (),
        records: Sequence[str] = (),
    ) -> Run | None:
        """Return a stage's finished run, done now or before; None where what was asked for ends before it.

        Args:
            name: of the stage, with -2 and so on where it is done again.
            identity: what decides its numbers.
            work: does it, and returns its summary.
            files: what it writes.
            records: those of its files that later stages read: a finished stage is refused where one has changed.

        Raises:
            UserError: it is not done, and one that comes after it was asked for; one of its files has changed.
        """
        base = name.partition("-")[0]
        mine = self.asked in ("all", base)
        later = self.asked != "all" and self.names.index(self.asked) < self.names.index(base)
        identity = {"stage": base, **identity}
        run = Run(run_path(identity, **self._place(base, name)))
        if (later or (self._did_one and not mine)) and not run.finished:
            self.say(f"next: the same command with stage={base}")
            return None
        first = "" if mine else f"stage={base} "
        run = open_run(
            identity,
            self.config,
            files=[SESSIONS, *files],
            **self._place(base, name),
            overwrite=self.overwrite and mine,
            hint=f"give {first}run.overwrite=true{' first' if first else ''}, or another run.dir",
        )
        self.found[name] = run
        if run.finished:
            check_files(run, base, records)
            self.say(f"{name}: done before, in {run.path}")
            return run
        if not mine:
            raise UserError(missing_stage(self.asked, base, run.path))
        with run.locked():
            with self.timed(run) as done:
                done |= work(run)
            run.finish({**done, "files": hashes_of(run, records)})
        self._did_one = True
        self.say(f"{name}: {', '.join([duration(done['seconds']), *self.in_words(done)])}")
        return run

    def _place(self, base: str, name: str) -> dict[str, Any]:
        return {
            "dir": None if self.dir is None else Path(self.dir) / "stages" / name,
            "root": Path(self.root) / "stages",
            "name": self._shared_name(base),
        }

    def _shared_name(self, base: str) -> str:
        return f"{base}-{self.label}".replace(os.sep, "-")

    @contextmanager
    def timed(self, run: Run) -> Iterator[dict[str, Any]]:
        """Time the work on a run; at the end the dictionary has what all its processes took, by the clock's names. What
        a process took that was killed outright is not known."""
        before = self.clock()
        done: dict[str, Any] = {}
        try:
            yield done
        finally:
            now = self.clock()
            append_record(run.path / SESSIONS, {name: now[name] - before[name] for name in now})
        sessions = read_records(run.path / SESSIONS)
        done |= {name: sum(one.get(name, 0.0) for one in sessions) for name in before}

    def check_input(self, there: Sequence[str]) -> None:
        """Raise UserError, before anything slow, for a stage that is asked for and whose input no run has written.

        `there`: the stages that this configuration has, in their order.
        """
        if self.asked == "all":
            return
        for name in there[: there.index(self.asked)]:
            folder = Path(self.root if self.dir is None else self.dir) / "stages"
            pattern = name if self.dir is not None else f"{glob.escape(self._shared_name(name))}-*"
            if not any(Run(found).finished for found in folder.glob(pattern)):
                raise UserError(missing_stage(self.asked, name, folder / pattern))


def hashes_of(run: Run, records: Sequence[str]) -> dict[str, str]:
    """Return of each file of records that is there a hash of its lines, whatever their order."""
    paths = [run.path / name for name in records]
    return {
        path.name: hashlib.sha256(b"\n".join(sorted(path.read_bytes().splitlines()))).hexdigest()
        for path in paths
        if path.is_file()
    }


def check_files(run: Run, stage: str, records: Sequence[str]) -> None:
    """Raise UserError for the first file of a finished stage that is not as the stage left it."""
    there = hashes_of(run, records)
    for name, before in read_json(run.summary)["files"].items():
        if there.get(name) != before:
            how = "was changed" if name in there else "is missing"
            raise UserError(
                f"{run.path / name} {how} since stage={stage} was done: do it again with stage={stage} "
                "run.overwrite=true"
            )


def missing_stage(asked: str, missing: str, where: Path) -> str:
    """Return the line that says what a stage lacks."""
    return (
        f"stage={asked} needs what stage={missing} writes, and {where} has not got it: "
        f"run the same command with stage={missing} first"
    )
