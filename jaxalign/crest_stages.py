"""The stages of a CREST run as runs of their own: where each is, whether it is to be done now, and what it took."""

import dataclasses
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console

from jaxalign.config import CrestConfig, plain
from jaxalign.errors import UserError
from jaxalign.progress import duration
from jaxalign.runs import Run, append_record, open_run, read_records
from jaxalign.training.programs import Programs

STAGES = ("seed", "rationales", "evaluate", "sft", "preferences", "dpo", "test")
"""In their order. A later iteration's are called rationales-2 and so on."""


@dataclasses.dataclass
class Stages:
    """The stages of one run. `found` holds those that were done or read, by name."""

    config: CrestConfig
    programs: Programs
    console: Console
    found: dict[str, Run] = dataclasses.field(default_factory=dict)

    def do(self, name: str, identity: dict[str, Any], work: Callable[[Run], dict[str, Any]]) -> Run:
        """Return a stage's finished run, done now (`work` returns its summary) or before.

        Raises:
            UserError: it is not done, and another one was asked for.
        """
        run = self._open(name, identity)
        if self._wanted(name, run):
            with run.locked(), self._timed(run) as done:
                done |= work(run)
        return run

    def _open(self, name: str, identity: dict[str, Any]) -> Run:
        """Open a stage's directory: beside the run's own where that has a name, else where other runs find it too."""
        c = self.config
        base = name.partition("-")[0]
        path = None if c.run.dir is None else Path(c.run.dir) / "stages" / name
        run = open_run(
            {"stage": base, **identity},
            plain(c),
            dir=path,
            root=Path(c.run.root) / "stages",
            name=f"{base}-{c.dataset.name}-{c.model.name}",
            overwrite=c.run.overwrite and c.stage in ("all", base),
        )
        self.found[name] = run
        return run

    def _wanted(self, name: str, run: Run) -> bool:
        """Return whether a stage is to be done now; raise UserError where a later one needs it and it is not done."""
        base = name.partition("-")[0]
        if run.finished:
            self.console.print(f"{name}: done before, in {run.path}", highlight=False, soft_wrap=True)
            return False
        if self.config.stage in ("all", base):
            return True
        raise UserError(
            f"stage={self.config.stage} needs what stage={base} writes, and {run.path} has not got it: "
            f"run the same command with stage={base} first"
        )

    @contextmanager
    def _timed(self, run: Run) -> Iterator[dict[str, Any]]:
        """Time a stage; what is put into the dictionary becomes its summary, with the seconds of all its processes."""
        since, compiled = time.perf_counter(), self.programs.seconds
        done: dict[str, Any] = {}

        def spent() -> dict[str, float]:
            compiling = self.programs.seconds - compiled
            return {"seconds": time.perf_counter() - since - compiling, "compilation_seconds": compiling}

        path = run.path / "sessions.jsonl"
        try:
            yield done
        except BaseException:
            append_record(path, spent())
            raise
        append_record(path, spent())
        sessions = read_records(path)
        total = {key: sum(one[key] for one in sessions) for key in ("seconds", "compilation_seconds")}
        run.finish({**done, **total})
        words = [f"{name} {value}" for name, value in done.items() if isinstance(value, int | float)]
        self.console.print(
            f"{run.path.name}: {duration(total['seconds'])}; {', '.join(words)}", highlight=False, soft_wrap=True
        )
