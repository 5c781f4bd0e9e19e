"""What a job read, in one line: the files, the rows of each, what is used, and what is left aside."""

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

Log = Callable[[str], object]
"""Takes one line that says what was read."""


def unsaid(_line: str) -> None:
    """Take a line and print nothing: for data that the user did not ask for."""


def account(what: str, files: Mapping[Path, int | str], used: str, aside: Sequence[str] = ()) -> str:
    """Return the line: the rows of each of `files` (or words about it), and what is left `aside` ("" for nothing).

    >>> account("data", {Path("a/train.csv"): 1200}, "1,100 examples", ["100 beyond dataset.limit"])
    'data: train.csv (1,200 rows); used: 1,100 examples; left aside: 100 beyond dataset.limit'
    """
    sizes = [count(rows, "row") if isinstance(rows, int) else rows for rows in files.values()]
    read = ", ".join(f"{name} ({size})" for name, size in zip(file_names(files), sizes, strict=True))
    kept = [one for one in aside if one]
    return f"{what}: {read}; used: {used}" + (f"; left aside: {', '.join(kept)}" if kept else "")


def file_names(files: Iterable[Path]) -> list[str]:
    """Return the names of files as they can be printed, with as much of their folders as tells them apart.

    >>> file_names([Path("d/easy/train.csv"), Path("d/hard/train.csv")])
    ['easy/train.csv', 'hard/train.csv']
    """
    paths = [Path(os.path.abspath(file)) for file in files]
    above = os.path.commonpath([path.parent for path in paths]) if paths else ""
    return [os.fsencode(path.relative_to(above)).decode(errors="replace") for path in paths]


def count(number: int, name: str) -> str:
    """Return a number with its noun.

    >>> count(1, "row"), count(1200, "row")
    ('1 row', '1,200 rows')
    """
    return f"{number:,} {name}{'' if number == 1 else 's'}"


def so_many(number: int, words: str) -> str:
    """Return a number with words about it; "" for nothing.

    >>> so_many(1200, "without a prompt"), so_many(0, "blank")
    ('1,200 without a prompt', '')
    """
    return f"{number:,} {words}" if number else ""


def beyond(rows: int, limit: int | None) -> str:
    """Return what `dataset.limit` leaves aside of so many rows, in words; "" for nothing."""
    return f"{rows - limit:,} beyond dataset.limit={limit}" if limit is not None and rows > limit else ""
