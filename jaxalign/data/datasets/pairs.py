"""Preference pairs from a user's file: a prompt, the chosen response, and the rejected one."""

from pathlib import Path
from typing import NamedTuple

from jaxalign.data.examples import take
from jaxalign.data.files import read_table
from jaxalign.errors import UserError

PAIR_FIELDS = ("prompt", "chosen", "rejected")


class PairText(NamedTuple):
    """A preference pair as text, and its place in the file for error messages."""

    prompt: str
    chosen: str
    rejected: str
    place: str


def load_pairs(path: str, limit: int | None = None) -> list[PairText]:
    """Return the pairs of a JSON, JSON Lines, CSV or Parquet file.

    Raises:
        UserError: the file does not exist; a row lacks one of the `PAIR_FIELDS`, or one is not a text; the two
            responses of a row are equal; there are fewer than 2 pairs.
    """
    found = []
    for row in read_table(Path(path)):
        missing = [name for name in PAIR_FIELDS if name not in row.fields]
        if missing:
            fields = ", ".join(map(str, row.fields)) or "none"
            raise UserError(f"{row.place} lacks {', '.join(missing)}; its fields are: {fields}")
        texts = [row.fields[name] for name in PAIR_FIELDS]
        for name, text in zip(PAIR_FIELDS, texts, strict=True):
            if not isinstance(text, str) or not text.strip():
                raise UserError(
                    f"{row.place} has no text in the field {name!r}: conversations are not read, only texts"
                )
        if texts[1] == texts[2]:
            raise UserError(f"{row.place} prefers a response to itself: chosen and rejected are the same")
        found.append(PairText(*texts, place=row.place))
    return take(found, limit, f"dataset.path={path}")
