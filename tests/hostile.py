"""Files that nobody means to give, for readers that must give a good result or one clear line, and nothing else."""

import json
import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st

from jaxalign.errors import UserError

few = settings(derandomize=True, max_examples=60, deadline=None, database=None)
"""Few examples, and the same ones each time."""

VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=6)
    | st.sampled_from(("A", "0", "against")),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)

FRAGMENTS = (
    *("\\ud83d", "\\udc00", '"\\udc00\\ud83d"', "NaN", "-Infinity", "1e999", "9" * 5000, "[" * 3000, '{"a":' * 3000),
    *("\0", "\ufeff", "\u2028", "\r", "\n", "\n\n", "null", "{}", "[]", '{"a":1,"a":2}', '"', "'", ",", "\t", "}", "]"),
    *("\x1b[2J", "é", "💥", "&a [*a]", "*a", "!!python/name:os.system", "<<: *a", "2024-13-45", "0x", "---\n", "%"),
)

BOMB = "a: &a [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join(f'*{before}' for _ in range(10))}]\n"
    for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)
"""YAML whose aliases stand for 10^9 values."""


@st.composite
def damaged(draw: Callable, texts: st.SearchStrategy[str]) -> bytes:
    """A text with strange pieces in it, in an encoding that need not be UTF-8."""
    text = draw(texts)
    for _ in range(draw(st.integers(0, 2))):
        place = draw(st.integers(0, len(text)))
        text = text[:place] + draw(st.sampled_from(FRAGMENTS)) + text[place:]
    return text.encode(draw(st.sampled_from(("utf-8", "utf-8", "utf-8", "utf-8-sig", "utf-16", "latin-1"))), "replace")


def rows(fields: Sequence[str] | Mapping[str, Any]) -> st.SearchStrategy[list[dict[str, Any]]]:
    """Rows with some of these fields, of any type; of a good row, rows in which up to two fields are of any type."""
    if isinstance(fields, Mapping):
        wrong = st.dictionaries(st.sampled_from(list(fields)), VALUES, max_size=2)
        return st.lists(wrong.map(lambda found: {**fields, **found}), max_size=4)
    return st.lists(st.dictionaries(st.sampled_from(fields), VALUES, max_size=len(fields)), max_size=4)


_TABLES: dict[str, st.SearchStrategy[bytes]] = {}


def tables(fields: Sequence[str] | Mapping[str, Any], suffix: str) -> st.SearchStrategy[bytes]:
    """The content of a damaged .json, .jsonl, .csv or .tsv file with some of these fields (see `rows`).

    It is made once, because Hypothesis checks each new one, which takes as long as a few examples.
    """
    key = repr((fields, suffix))
    if key not in _TABLES:
        _TABLES[key] = _tables(fields, suffix)
    return _TABLES[key]


def _tables(fields: Sequence[str] | Mapping[str, Any], suffix: str) -> st.SearchStrategy[bytes]:
    if suffix == ".json":
        return damaged(rows(fields).map(json.dumps)) | st.binary(max_size=40)
    if suffix == ".jsonl":
        return damaged(rows(fields).map(lambda found: "\n".join(map(json.dumps, found)))) | st.binary(max_size=40)
    mark = "," if suffix == ".csv" else "\t"
    cells = st.lists(st.text(max_size=4) | st.sampled_from(("1", "0", "7", "in favor of")), min_size=1, max_size=4)
    header = st.lists(st.sampled_from(list(fields)), min_size=1, max_size=len(fields))
    return damaged(
        st.tuples(header, st.lists(cells, max_size=4)).map(
            lambda found: "\n".join(mark.join(line) for line in (found[0], *found[1]))
        )
    )


FOLDER = Path(tempfile.mkdtemp(prefix="hostile-", dir=os.environ["JAXALIGN_CACHE"]))
"""Where single files of examples stand, each in the place of the one before; it goes with the tests' cache."""


def survives(read: Callable[[Path], object], path: Path | str, content: bytes) -> None:
    """Check that a reader takes a file, or refuses it with one line that names the file or its folder.

    A name without a folder is for a reader of this file alone.
    """
    path = FOLDER / path
    path.write_bytes(content)
    try:
        read(path)
    except UserError as error:
        line = str(error)
        assert line and line.isprintable() and (path.name in line or str(path.parent) in line)
