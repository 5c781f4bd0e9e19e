"""The terminal: a console that texts cannot steer, and the display of the progress of training and sampling."""

import time
from collections.abc import Callable, Iterable
from typing import Any

from rich import progress as rich_progress
from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.text import Text

from jaxalign.analysis.markdown import printable


class SafeConsole(Console):
    """A console that leaves control characters out of all that it prints: lines, cells of tables, progress.

    Names, paths, data and answers of models are printed, and an escape in one of them would colour the terminal, move
    its cursor or rename its window. Our own colours are no text, and stay. Rich counts control characters as 0 columns
    wide, so that tables without them stand as before.
    """

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Yield the pieces of what is printed; those that rich makes to steer the terminal itself stay as they are."""
        for piece in super().render(renderable, options):
            yield piece if piece.control else Segment(printable(piece.text), piece.style)


def plain_console(**settings: Any) -> Console:
    """Return a console that prints texts as they are but for control characters (see `SafeConsole`).

    Texts hold names and paths of the user. By itself, rich takes [bold] for markup and :cat: for a picture, and prints
    nothing into a width of 0. Tests give it other `settings` of rich's Console.
    """
    console = SafeConsole(markup=False, emoji=False, **settings)
    if not console.width:  # as COLUMNS=0 says it where there is no terminal
        console.width = 80
    return console


def print_line(line: str) -> None:
    """Print a line without control characters (see `SafeConsole`), also where there is no console."""
    print(printable(line))


def say(console: Console, line: str | Text) -> None:
    """Print a line as it is, which a narrow terminal breaks itself."""
    console.print(line, highlight=False, markup=False, soft_wrap=True)


class Progress:
    """A display of stage, step, loss, tokens per second and time left: live in a terminal, plain lines elsewhere.

    >>> import io
    >>> with Progress(Console(file=io.StringIO())) as progress:
    ...     progress.stage("arguments", total=300)
    ...     progress.update(1, loss=2.31, tokens_per_second=850)

    Args:
        console: where the display appears; standard output by default.
        interval: seconds between two plain lines.
        clock: returns the time in seconds; tests replace it.
    """

    def __init__(
        self,
        console: Console | None = None,
        interval: float = 10.0,
        clock: Callable[[], float] = time.monotonic,
    ):
        self._console = console or plain_console()
        self._interval, self._clock = interval, clock
        self._live: rich_progress.Progress | None = None
        self._task: rich_progress.TaskID | None = None
        self._stage, self._total, self._printed = "", 0, -float("inf")
        self._unit = "step"
        self._start = (0, 0.0)

    def __enter__(self) -> "Progress":
        if self._console.is_terminal:
            texts = ("{task.description}", "{task.fields[line]}")
            name, line = (rich_progress.TextColumn(text, markup=False) for text in texts)
            columns = (name, rich_progress.BarColumn(bar_width=12), line)
            live = rich_progress.Progress(*columns, console=self._console)
            live.start()
            self._live = live
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.stop()

    def stage(self, name: str, total: int, done: int = 0, unit: str = "step") -> None:
        """Begin a stage of `total` steps (or other `unit`s), `done` of which an earlier process has done."""
        self._unit = unit
        self._stage, self._total = name, total
        self._start, self._printed = (done, self._clock()), -float("inf")
        if self._live is not None:
            self._task = self._live.add_task(name, total=total, completed=done, line="starting")
        else:
            self._console.print(f"{name}: {total - done} {unit}s", highlight=False)

    def samples(self, name: str, unit: str = "sample") -> Callable[[int, int, float], None]:
        """Return a callback that an engine calls with (done, total, tokens per second).

        The first call, with done = 0, begins the stage. Another call with done = 0 right after it only shows the speed,
        while the first samples are being drawn.
        """
        last: tuple[int, int] | None = None

        def count(done: int, total: int, speed: float) -> None:
            nonlocal last
            if done == 0 and last != (0, total):
                self.stage(name, total, unit=unit)
            else:
                self.update(done, tokens_per_second=speed)
            last = done, total

        return count

    def update(self, step: int, *, tokens_per_second: float | None = None, loss: float | None = None) -> None:
        """Show that `step` steps of the stage are done, with their speed and loss if they are known."""
        first, since = self._start
        now = self._clock()
        left = (now - since) / max(1, step - first) * (self._total - step)
        remaining = [f"{duration(left)} left"] if step > first else []
        speed = [] if tokens_per_second is None else [f"{tokens_per_second:,.0f} tokens/s"]
        parts = [f"{step}/{self._total}", *([] if loss is None else [f"loss {loss:.3f}"]), *speed]
        line = " · ".join([*parts, *remaining])
        if self._live is not None and self._task is not None:
            self._live.update(self._task, completed=step, line=line)
        elif now - self._printed >= self._interval or step == self._total:
            self._printed = now
            self._console.print(f"{self._stage}: {self._unit} {line}", highlight=False)


def compilations(console: Console) -> Callable[[str, float], None]:
    """Return a callback for `Programs.log` that prints each compilation and its seconds."""
    return lambda name, seconds: console.print(f"compiled {name} in {seconds:.1f} s", style="dim")


def duration(seconds: float) -> str:
    """Return a time as text: '45 s', '3 min 20 s', '2 h 05 min'."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def all_here(what: str) -> str:
    """Return the line of `prefetch=true`: nothing is missing; `what` says what the command needs."""
    return f"all that this command needs is here: {what}"
