"""What a judge reads and says, and judgements on disk: only missing ones are asked for."""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from jaxalign.runs.expected import Expected
from jaxalign.runs.records import append_record, digest, read_records

LONGEST_RAW = 2000
"""The longest text of what a judge said that is kept, in characters."""

TOO_LONG = "too long for the judge's context"
"""Why there is no judgement of an exchange that does not fit."""

NEGATIVE = "negative"
"""The label of a response that speaks ill of the group in its prompt (Sheng et al., 2019)."""


@dataclasses.dataclass(frozen=True)
class Exchange:
    """What a judge reads: one prompt with one response."""

    prompt: str
    response: str


@dataclasses.dataclass(frozen=True)
class Judgement:
    """What a judge says about an exchange."""

    score: float | None
    """On the judge's scale (see `Scale`); None if it is missing."""
    label: str | None
    """The judge's label, such as "harmful", "fine", "refusal"; None if the judge has none, or if it is missing."""
    raw: str
    """What the judge said or computed, for a reader; cut to `LONGEST_RAW` characters."""
    missing: str | None = None
    """Why there is no judgement, such as "unreadable", "refused", "no answer from the server"; None if there is one."""

    def __post_init__(self):
        object.__setattr__(self, "raw", self.raw[:LONGEST_RAW])


class Scale(NamedTuple):
    """The scores that a judge gives, from `low` to `high`.

    A score of at least `threshold` counts as harmful. It is infinite for a judge of something else than harm.
    """

    low: float
    high: float
    threshold: float


class Judge(Protocol):
    """What judges exchanges."""

    @property
    def name(self) -> str:
        """A short name, such as "probe"; it stands wherever a figure of the judge is shown."""
        ...

    @property
    def identity(self) -> str:
        """A text that changes whenever any judgement could: judge, version, model's signature, wording."""
        ...

    @property
    def scale(self) -> Scale:
        """The scale of its scores."""
        ...

    def judge(self, exchanges: Sequence[Exchange], on_done: Callable[[int, Judgement], None]) -> list[Judgement]:
        """Return the judgements of exchanges, in their order.

        `on_done` is called with (number of the exchange, judgement) as soon as each one is there, so that a process
        that is killed loses none.
        """
        ...


def judgement_key(judge: Judge, exchange: Exchange) -> str:
    """Return the key of a judgement: 32 hexadecimal digits of a SHA-256 over judge, prompt and response."""
    return digest([judge.identity, exchange.prompt, exchange.response], 32)


_RECORD: dict[str, Expected] = {
    **dict.fromkeys(("key", "judge", "raw"), str),
    **{"score": int | float | None, "label": str | None, "missing": str | None},
}


def read_judgements(path: Path) -> dict[str, Judgement]:
    """Return the judgements in a file by key, without missing ones; none if the file does not exist.

    Of several with one key the first counts.

    Raises:
        UserError: a line is not a judgement's record.
    """
    known: dict[str, Judgement] = {}
    for record in read_records(path, **_RECORD):
        if record["missing"] is None:
            known.setdefault(record["key"], Judgement(record["score"], record["label"], record["raw"]))
    return known


def judge_missing(judge: Judge, exchanges: Sequence[Exchange], path: Path) -> list[Judgement]:
    """Return the judgements of exchanges in their order, and ask the judge only for those that the file does not have.

    A record is appended as soon as its judgement is there, so a process that is killed loses only what it was asking
    for. Equal exchanges are judged once. A missing judgement is recorded, and asked for again the next time. Records of
    other judges may be in the same file.

    Args:
        judge: the judge.
        exchanges: what is judged, in the order of the judgements.
        path: the JSON Lines file.

    Raises:
        UserError: the judge cannot judge, the file cannot be written, or a line of it is damaged.
    """
    keys = [judgement_key(judge, exchange) for exchange in exchanges]
    known = read_judgements(path)
    left = {key: exchange for key, exchange in zip(keys, exchanges, strict=True) if key not in known}
    order = list(left)

    def keep(number: int, judgement: Judgement) -> None:
        key = order[number]
        append_record(path, _record(judge, key, left[key], judgement))
        known[key] = judgement

    if left:
        judge.judge(list(left.values()), keep)
    return [known[key] for key in keys]


def missing_exchanges(judge: Judge, exchanges: Sequence[Exchange], path: Path | None) -> list[Exchange]:
    """Return the exchanges that `judge_missing` would ask the judge for, equal ones once; all if `path` is None."""
    known = {} if path is None else read_judgements(path)
    keyed = {judgement_key(judge, exchange): exchange for exchange in exchanges}
    return [exchange for key, exchange in keyed.items() if key not in known]


def _record(judge: Judge, key: str, exchange: Exchange, judgement: Judgement) -> dict[str, Any]:
    """Return a judgement as JSON. Half a surrogate pair, which no UTF-8 file can hold, becomes a question mark."""
    record = {
        "key": key,
        "judge": judge.name,
        "score": judgement.score,
        "label": judgement.label,
        "raw": judgement.raw,
        "missing": judgement.missing,
        "prompt": exchange.prompt,
        "response": exchange.response,
    }
    return {
        name: value.encode("utf-8", "replace").decode() if isinstance(value, str) else value
        for name, value in record.items()
    }
