"""The stages of a CREST run as runs of their own: where each is, whether it is to be done now, and what it took."""

import dataclasses
import glob
import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console

from jaxalign.config.crest import CrestConfig
from jaxalign.config.identity import plain
from jaxalign.errors import UserError
from jaxalign.parallel.compilation import Programs
from jaxalign.reasoning.counts import counts_in_words
from jaxalign.runs.directory import Run, open_run, run_path
from jaxalign.runs.progress import duration
from jaxalign.runs.records import append_record, read_records

STAGES = ("seed", "rationales", "evaluate", "sft", "preferences", "dpo", "test")
"""In their order. A later iteration's are called rationales-2 and so on."""

TOOK = ("seconds", "compilation_seconds", "python_seconds")
"""What is measured of a stage: its time without compilation; compilation; and of the time, this program's own Python
(the processor's seconds of its thread), which the model's passes are not part of."""


@dataclasses.dataclass
class Stages:
    """The stages of one run. `found` holds those that were done or read, by name."""

    config: CrestConfig
    programs: Programs
    console: Console
    found: dict[str, Run] = dataclasses.field(default_factory=dict)
    did_one: bool = False

    def do(self, name: str, identity: dict[str, Any], work: Callable[[Run], dict[str, Any]]) -> Run | None:
        """Return a stage's finished run, done now (`work` returns its summary) or before; None where what was asked for
        ends before it.

        Raises:
            UserError: it is not done, and one that comes after it was asked for.
        """
        asked, base = self.config.stage, name.partition("-")[0]
        mine = asked in ("all", base)
        later = asked != "all" and STAGES.index(asked) < STAGES.index(base)
        run = Run(self._path(base, name, identity))
        if (later or (self.did_one and not mine)) and not run.finished:
            self.console.print(f"next: the same command with stage={base}", highlight=False)
            return None
        run = self._open(base, name, identity)
        self.found[name] = run
        if run.finished:
            check_files(run, base)
            self.console.print(f"{name}: done before, in {run.path}", highlight=False, soft_wrap=True)
            return run
        if not mine:
            raise UserError(needs(asked, base, run.path))
        with run.locked():
            with self.timed(run) as done:
                done |= work(run)
            run.finish({**done, "files": files_of(run)})
        self.did_one = True
        line = f"{name}: {', '.join([duration(done['seconds']), *counts_in_words(done)])}"
        self.console.print(line, highlight=False, soft_wrap=True)
        return run

    def _place(self, base: str, name: str) -> dict[str, Any]:
        """Return where a stage is: beside the run's own where that has a name, else where other runs find it too."""
        c = self.config
        return {
            "dir": None if c.run.dir is None else Path(c.run.dir) / "stages" / name,
            "root": Path(c.run.root) / "stages",
            "name": stage_name(c, base),
        }

    def _path(self, base: str, name: str, identity: dict[str, Any]) -> Path:
        return run_path({"stage": base, **identity}, **self._place(base, name))

    def _open(self, base: str, name: str, identity: dict[str, Any]) -> Run:
        c = self.config
        mine = c.stage in ("all", base)
        first = "" if mine else f"stage={base} "
        return open_run(
            {"stage": base, **identity},
            plain(c),
            **self._place(base, name),
            overwrite=c.run.overwrite and mine,
            hint=f"give {first}run.overwrite=true{' first' if first else ''}, or another run.dir",
        )

    @contextmanager
    def timed(self, run: Run) -> Iterator[dict[str, Any]]:
        """Time the work on a run; at the end the dictionary has what all its processes took (see `TOOK`). What a
        process took that was killed outright is not known."""
        since, own = time.perf_counter(), time.thread_time()
        compiled, compiled_own = self.programs.seconds, self.programs.thread_seconds
        done: dict[str, Any] = {}
        path = run.path / "sessions.jsonl"
        try:
            yield done
        finally:
            compiling = self.programs.seconds - compiled
            spent = (
                time.perf_counter() - since - compiling,
                compiling,
                time.thread_time() - own - (self.programs.thread_seconds - compiled_own),
            )
            append_record(path, dict(zip(TOOK, spent, strict=True)))
        sessions = read_records(path)
        done |= {key: sum(one.get(key, 0.0) for one in sessions) for key in TOOK}


def stage_name(config: CrestConfig, base: str) -> str:
    """Return what a stage's directory is called where runs share it, but for what tells its configuration."""
    return f"{base}-{config.dataset.name}-{config.model.name}".replace(os.sep, "-")


def files_of(run: Run) -> dict[str, str]:
    """Return of each file of records that later stages read a hash of its lines, whatever their order."""
    paths = [run.path / name for name in ("generations.jsonl", "rationales.jsonl", "pairs.jsonl")]
    return {
        path.name: hashlib.sha256(b"\n".join(sorted(path.read_bytes().splitlines()))).hexdigest()
        for path in paths
        if path.is_file()
    }


def check_files(run: Run, stage: str) -> None:
    """Raise UserError for the first file of a finished stage that is not as the stage left it."""
    there = files_of(run)
    for name, digest in json.loads(run.summary.read_text(encoding="utf-8"))["files"].items():
        if there.get(name) != digest:
            how = "was changed" if name in there else "is missing"
            raise UserError(
                f"{run.path / name} {how} since stage={stage} was done: do it again with stage={stage} "
                "run.overwrite=true"
            )


def needs(asked: str, missing: str, where: Path) -> str:
    """Return the line that says what a stage lacks."""
    return (
        f"stage={asked} needs what stage={missing} writes, and {where} has not got it: "
        f"run the same command with stage={missing} first"
    )


def check_input(config: CrestConfig, stages: Sequence[str]) -> None:
    """Raise UserError, before anything slow, for a stage one of whose inputs no run has written.

    Args:
        config: the configuration; its `stage` is the one asked for.
        stages: those that the configuration has, in their order.
    """
    run, asked = config.run, config.stage
    if asked == "all":
        return
    for name in stages[: stages.index(asked)]:
        folder = Path(run.root if run.dir is None else run.dir) / "stages"
        pattern = name if run.dir is not None else f"{glob.escape(stage_name(config, name))}-*"
        if not any((found / "summary.json").is_file() for found in folder.glob(pattern)):
            raise UserError(needs(asked, name, folder / pattern))
