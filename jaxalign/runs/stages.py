"""The stages of a job as runs of their own: where each stage is, whether it is done now, and how long it took.

The directory of a stage is named by all that decides its numbers. So jobs that differ only in later stages share the
earlier ones, and each stage resumes by itself. Nothing here knows what the stages do.
"""

import dataclasses
import glob
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from jaxalign.errors import UserError
from jaxalign.parallel.distributed import by_first, of_first
from jaxalign.runs.config_file import is_older, safe_name
from jaxalign.runs.directory import Run, open_run, run_path
from jaxalign.runs.expected import Expected, Maybe
from jaxalign.runs.mirror import Mirror
from jaxalign.runs.of_first import open_run_of_first
from jaxalign.runs.progress import duration
from jaxalign.runs.records import append_record, read_records

SESSIONS = "sessions.jsonl"
"""The file with one record for each process that worked on a stage: the time that it took."""


@dataclasses.dataclass(frozen=True)
class StageSpec:
    """What a stage writes, and what it does not depend on.

    Attributes:
        files: the files that the stage writes.
        records: those of its files that later stages read; if one of them changes, the stage is refused.
        without: the keys of the configuration that do not change the numbers of the stage.
    """

    files: Sequence[str]
    records: Sequence[str] = ()
    without: Sequence[str] = ()


@dataclasses.dataclass
class Stages:
    """The stages of one job.

    Attributes:
        names: all stages, in their order. A stage that is done again is called NAME-2 and so on.
        wanted: the stage that the user asked for (`stage=`), or `all`.
        config: the whole configuration as nested dictionaries, for each stage's config.yaml.
        dir: the job's directory if the user named one; it then holds the stages. None: the stages are under `root`,
            where other jobs share them.
        root: see dir.
        label: the part of a shared directory's name that follows the stage's name.
        overwrite: whether the stages that were asked for are done anew.
        mirror: where the stages are copied to, if they are.
        say: prints a line.
        in_words: returns the counts in a stage's summary, in words.
        expected: the keys that the summary of every stage must have, and what they must be.
        clock: returns the times spent so far, by name, `seconds` among them. A stage's summary has the differences.
        found: the stages that were done or read, by name.
    """

    names: Sequence[str]
    wanted: str
    config: Mapping[str, Any]
    dir: str | None
    root: str
    label: str
    overwrite: bool
    say: Callable[[str], None]
    in_words: Callable[[Mapping[str, Any]], list[str]]
    mirror: Mirror | None = None
    expected: Mapping[str, Expected] = dataclasses.field(default_factory=dict)
    clock: Callable[[], Mapping[str, float]] = lambda: {"seconds": time.perf_counter()}
    found: dict[str, Run] = dataclasses.field(default_factory=dict)
    _did_one: bool = False

    def do(
        self,
        name: str,
        spec: StageSpec,
        identity: Mapping[str, Any],
        work: Callable[[Run], dict[str, Any]],
    ) -> Run | None:
        """Do a stage unless it is done already, and return its finished run; None if the command stops before it.

        The command stops before this stage if the stage is not done and `wanted` is an earlier one. Several processes
        work together, and all but the first one on a copy of the run (see `runs.of_first`).

        Args:
            name: the name of the stage, with -2 and so on if it is done again.
            spec: what the stage writes.
            identity: all that decides the stage's numbers.
            work: does the stage, and returns its summary.

        Raises:
            UserError: the stage is not done, and a later one was asked for; its summary is damaged; or one of its files
                has changed.
        """
        base = name.partition("-")[0]
        mine = self.wanted in ("all", base)
        later = self.wanted != "all" and self.names.index(self.wanted) < self.names.index(base)
        finished = by_first(lambda: self.run_of(name, identity).finished)
        if (later or (self._did_one and not mine)) and not finished:
            self.say(next_stage(base))
            return None
        first = "" if mine else f"stage={base} "
        files, identity = [SESSIONS, *spec.files], {"stage": base, **identity}
        run = open_run_of_first(
            identity,
            lambda: open_run(
                identity,
                self.config,
                files=files,
                **self._place(base, name),
                overwrite=self.overwrite and mine,
                mirror=self.mirror,
                hint=f"give {first}run.overwrite=true{' first' if first else ''}, or another run.dir",
            ),
            files,
        )
        self.found[name] = run
        if run.finished:
            mend = f"do it again with stage={base} run.overwrite=true"
            run.results(mend, **self.expected)
            by_first(lambda: run.check_files(mend))
            self.say(f"{name}: done before, in {run.path}")
            return run
        if not mine:
            raise UserError(missing_stage(self.wanted, base, run.path))
        with of_first(run.locked()):
            with self.timed(run) as done:
                done |= work(run)
            run.finish(done, spec.records)
        self._did_one = True
        self.say(f"{name}: {', '.join([duration(done['seconds']), *self.in_words(done)])}")
        return run

    def run_of(self, name: str, identity: Mapping[str, Any]) -> Run:
        """Return the run of a stage, which need not exist, as the mirror has it; for the arguments see `do`."""
        base = name.partition("-")[0]
        run = Run(run_path({"stage": base, **identity}, **self._place(base, name)), self.mirror)
        if not (self.overwrite and self.wanted in ("all", base)):
            run.fetch()
        return run

    def _place(self, base: str, name: str) -> dict[str, Any]:
        return {
            "dir": None if self.dir is None else Path(self.dir) / "stages" / name,
            "root": Path(self.root) / "stages",
            "name": self._shared_name(base),
        }

    def _shared_name(self, base: str) -> str:
        return safe_name(f"{base}-{self.label}")

    @contextmanager
    def timed(self, run: Run) -> Iterator[dict[str, Any]]:
        """Time the work on a run, and put the times of all its processes into the dictionary at the end.

        The keys are those of `clock`. The time of a process that was killed outright is missing.
        """
        self._sessions(run)  # what is damaged is refused before the work
        before = self.clock()
        done: dict[str, Any] = {}
        try:
            yield done
        finally:
            now = self.clock()
            append_record(run.path / SESSIONS, {name: now[name] - before[name] for name in now})
        done |= {name: sum(one.get(name) or 0.0 for one in self._sessions(run)) for name in before}

    def _sessions(self, run: Run) -> list[dict[str, Any]]:
        """Return the times of all processes that worked on a stage; UserError if one is damaged."""
        return read_records(run.path / SESSIONS, **dict.fromkeys(self.clock(), Maybe(int | float)))

    def check_input(self, there: Sequence[str]) -> None:
        """Raise UserError, before any slow work, if no run has written the input of the stage that was asked for.

        `there` lists the stages of this configuration, in their order.
        """
        if self.wanted == "all":
            return
        for name in there[: there.index(self.wanted)]:
            pattern, finished = self._pattern(name), [run.path for run in self.finished(name)]
            mirrored = self.mirror is not None and self.mirror.holds_finished(pattern.parent, pattern.name)
            if all(map(is_older, finished)) and not mirrored:
                raise UserError(missing_stage(self.wanted, name, pattern, older=bool(finished)))

    def finished(self, name: str) -> list[Run]:
        """Return the finished runs of a stage of all jobs with this label, in the order of their names."""
        pattern = self._pattern(name)
        return [run for path in sorted(pattern.parent.glob(pattern.name)) if (run := Run(path)).finished]

    def _pattern(self, name: str) -> Path:
        folder = Path(self.root if self.dir is None else self.dir) / "stages"
        return folder / (name if self.dir is not None else f"{glob.escape(self._shared_name(name))}-*")


def next_stage(name: str) -> str:
    """Return the line that says how to go on with a stage."""
    return f"next: the same command with stage={name}"


def missing_stage(wanted: str, missing: str, where: Path, *, older: bool = False) -> str:
    """Return the error line for a stage whose input is missing, or (`older`) of another version of jaxalign."""
    return (
        f"stage={wanted} needs the results of stage={missing}, and {where} "
        f"{'was made by another version of jaxalign' if older else 'does not hold them'}: run the same command with "
        f"stage={missing} first{' (and another run.dir, if you gave one)' if older else ''}"
    )
