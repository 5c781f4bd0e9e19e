"""The judges of a command at work: loaded when one is needed, with their progress, and measured on labels."""

import dataclasses
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from jaxalign.errors import without_home
from jaxalign.jobs.harm.judges import HarmJudges, OpenedJudge
from jaxalign.jobs.harm.session import HarmSession
from jaxalign.parallel.distributed import stoppable
from jaxalign.runs.of_first import file_of_first
from jaxalign.runs.progress import Progress, say
from jaxalign.safety.calibration import calibrate
from jaxalign.safety.judgements import Exchange, Judge, Judgement, Scale, judge_missing
from jaxalign.safety.judges.api import RequestEstimate, RubricApi
from jaxalign.safety.judges.repeats import judge_repeatedly, movement
from jaxalign.safety.labelled import SHIPPED_LABELS, LabelledResponse
from jaxalign.safety.states import is_blank
from jaxalign.safety.value_map import prompt_hash


def print_estimate(console: Console, name: str, costs: Sequence[RequestEstimate]) -> None:
    """Print the least number of requests and tokens that judging takes, summed over its parts."""
    requests, prompts, answers = map(sum, zip(*costs, strict=True))
    tokens = f"about {prompts:,} tokens in, {answers:,} out"
    console.print(f"{name}: at least {requests:,} requests, {tokens}", highlight=False)


@dataclasses.dataclass(frozen=True)
class WatchedJudge:
    """A judge that shows its progress. `title` is its name in records and in the display; "" is its own."""

    inner: Judge
    console: Console
    title: str = ""

    @property
    def name(self) -> str:
        """The title, or the name of the judge."""
        return self.title or self.inner.name

    @property
    def identity(self) -> str:
        """The identity of the judge."""
        return self.inner.identity

    @property
    def scale(self) -> Scale:
        """The scale of the judge."""
        return self.inner.scale

    def judge(self, exchanges: Sequence[Exchange], on_done: Callable[[int, Judgement], None]) -> list[Judgement]:
        """Return the judgements (see `Judge`)."""
        done, stop_or_go = 0, stoppable()
        with Progress(self.console) as progress:
            progress.stage(f"judging by {self.name}", len(exchanges), unit="response")

            def tick(number: int, judgement: Judgement) -> None:
                nonlocal done
                on_done(number, judgement)
                done += 1
                progress.update(done)
                stop_or_go(done, len(exchanges), 0.0)

            return self.inner.judge(exchanges, tick)


class LoadedJudges:
    """Judges that are loaded when the first judgement is missing, and their agreement with labels."""

    def __init__(self, session: HarmSession, judges: HarmJudges):
        self.opened, self._session = judges, session
        self._loaded: dict[str, Judge] = {}
        self._calibrations: dict[str, dict[str, Any]] = {}

    def load(self, one: OpenedJudge) -> Judge:
        """Return a judge, loaded."""
        if one.name not in self._loaded:
            self._loaded[one.name] = one.load()
        return self._loaded[one.name]

    def missing(self, one: OpenedJudge, exchanges: Sequence[Exchange], path: Path) -> list[Judgement]:
        """Return judgements, and ask only for those that the file does not hold (see `judge_missing`)."""
        return judge_missing(WatchedJudge(self.load(one), self._session.console), exchanges, path)

    def repeated(self, judge: RubricApi, exchanges: Sequence[Exchange], path: Path) -> dict[str, Any]:
        """Return how far judgements move if `judge.repeat` of each are made (see `movement`), as JSON."""
        repeat, console = self._session.config.judge.repeat, self._session.console
        rounds = judge_repeatedly(judge, repeat, exchanges, path, lambda one: WatchedJudge(one, console))
        return {"judge": judge.name, "repeat": repeat, **dataclasses.asdict(movement(rounds, judge.scale))}

    def measuring(self, one: OpenedJudge) -> tuple[list[LabelledResponse], Path]:
        """Return the labelled responses that a judge is measured on, and the file of its judgements of them."""
        c, rows = self._session.config, []
        if self.opened.is_measured(one, c.judge):
            rows = [row for row in self.opened.labels.rows if not is_blank(row.response)]
            rows = [row for row in rows if prompt_hash(row.prompt) not in one.fitted_on]
        place = Path(c.run.folder) / "stages"
        return rows, place / "calibration" / f"{one.name}.jsonl".replace(" ", "-")

    def calibration(self, one: OpenedJudge, about: str) -> dict[str, Any]:
        """Return how far a judge agrees with labelled responses (see `calibrate`), as JSON."""
        c = self._session.config
        if one.name not in self._calibrations:
            judge = self.load(one)
            rows, path = self.measuring(one)
            given = self.missing(one, [row.exchange for row in rows], file_of_first(path)) if rows else []
            if reasons := why_none(given):  # such as of scores from a file, which has no others
                told = f"it judged none of the {len(rows):,} labelled responses ({reasons.most_common(1)[0][0]})"
                say(self._session.console, f"{one.name} is not measured: {told}")
            model = without_home(one.model)  # a server or a file may have it as a path
            found = calibrate(one.name, judge.scale, rows, given, about, model)
            self._calibrations[one.name] = {
                "judge": one.name,
                "model": model,
                "identity": judge.identity,
                "about": about,
                "scale": [None if abs(x) == float("inf") else x for x in judge.scale],
                **found.figures,
                "labels": without_home(c.judge.labels or SHIPPED_LABELS),
                "line": found.line,
            }
        return self._calibrations[one.name]


def why_none(given: Sequence[Judgement]) -> Counter[str]:
    """Return how often each reason is given for a missing judgement, if all are missing; nothing otherwise."""
    reasons = Counter(one.missing for one in given if one.missing is not None)
    return reasons if reasons.total() == len(given) else Counter()
