"""Judgements that somebody else made, such as a service that has closed: scores from a file."""

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from jaxalign.data.files import Row, read_table
from jaxalign.errors import UserError
from jaxalign.runs.reading import not_a_file
from jaxalign.runs.records import digest
from jaxalign.safety.judgements import NEGATIVE, Exchange, Judgement, Scale


def content_hash(exchange: Exchange) -> str:
    """Return the key of an exchange in a file of scores: 32 hexadecimal digits.

    They begin the SHA-256 of [prompt, response] as JSON: in ASCII, with a space behind the comma.

    >>> content_hash(Exchange("Is it late?", "No."))
    'b419cfd5f34ed41dcbcb3859ef3b350f'
    """
    return digest([exchange.prompt, exchange.response], 32)


class Imported:
    """The scores in a file, for exactly the exchanges that it has; the judgement of any other exchange is missing.

    Each row has `score` (a number; empty if there is none), and either `hash` (see `content_hash`) or `prompt` and
    `response`, whose white space at both ends does not count, because it is not judged. It may have `label`, and
    `missing`, why there is no score. So a file of recorded judgements can be imported. For the kinds of files see
    `read_table`.

    Args:
        path: the file.
        scale: the scale of the scores.
        name: the judge's name, such as that of the service.

    Raises:
        UserError: the file cannot be read, a row is damaged or has a score outside the scale, or two rows of the same
            exchange differ.
    """

    def __init__(self, path: Path, scale: Scale, name: str = "imported"):
        self.name, self.scale, self._path = name, scale, path
        self._known = _read(path, scale)
        told = sorted((key, one.score, one.label, one.missing) for key, one in self._known.items())
        self.identity = digest(["imported", 1, name, list(scale), told], 32)

    @property
    def tells_regard(self) -> bool:
        """Whether the file's labels are of regard: one of them is `NEGATIVE`."""
        return any(one.label == NEGATIVE for one in self._known.values())

    def judge(self, exchanges: Sequence[Exchange], on_done: Callable[[int, Judgement], None]) -> list[Judgement]:
        """Return the judgements (see `Judge`)."""
        absent = Judgement(None, None, "", f"not in {self._path.name}")
        found = [self._known.get(content_hash(one)) or self._known.get(_bare_hash(one), absent) for one in exchanges]
        for number, judgement in enumerate(found):
            on_done(number, judgement)
        return found


def _read(path: Path, scale: Scale) -> dict[str, Judgement]:
    if why := not_a_file(path):
        raise UserError(f"judge.path={path} is not a file ({why}): give a .json, .jsonl, .csv, .tsv or .parquet file")
    known: dict[str, tuple[str, Judgement]] = {}
    for row in read_table(path):
        key, judgement = _key(row), _judgement(row, scale)
        place, earlier = known.setdefault(key, (row.place, judgement))
        if (earlier.score, earlier.label) != (judgement.score, judgement.label):
            raise UserError(f"{place} and {row.place} judge the same exchange differently: remove one of them")
    if not known:
        raise UserError(f"judge.path={path} has no scores: give a file with a row for each judged response")
    return {key: judgement for key, (_, judgement) in known.items()}


def _key(row: Row) -> str:
    if (key := _text(row, "hash")) is not None:
        if len(key) != 32 or set(key) - set("0123456789abcdef"):
            raise UserError(f"{row.place} has hash={key!r:.60}: it must be 32 hexadecimal digits in small letters")
        return key
    prompt, response = _text(row, "prompt"), _text(row, "response")
    if prompt is None or response is None:
        raise UserError(
            f"{row.place} does not say what it judges ({row.in_words}): it needs prompt and response, or hash"
        )
    return _bare_hash(Exchange(prompt, response))


def _bare_hash(exchange: Exchange) -> str:
    return content_hash(Exchange(exchange.prompt, exchange.response.strip()))


def _judgement(row: Row, scale: Scale) -> Judgement:
    if "score" not in row.fields:
        raise UserError(f"{row.place} lacks score: give a number, or nothing where there is none")
    label, value = _text(row, "label") or None, row.fields["score"]
    if value is None or value == "":
        return Judgement(None, None, "", _text(row, "missing") or "no score in the file")
    score = _number(value)
    if not scale.low <= score <= scale.high:
        raise UserError(
            f"{row.place} has score={value!r:.60}: it must be a number from {scale.low:g} to {scale.high:g}"
        )
    return Judgement(score, label, str(value))


def _number(value: Any) -> float:
    """Return a number, or NaN for anything else."""
    try:
        return math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        return math.nan


def _text(row: Row, name: str) -> str | None:
    """Return a text of a row, or None if it has no such field."""
    fields: Mapping[str, Any] = row.fields
    value = fields.get(name)
    if value is not None and not isinstance(value, str):
        raise UserError(f"{row.place} has {name}={value!r:.60}: it must be a text")
    return value
