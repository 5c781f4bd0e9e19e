"""The shapes of a reading's passes on disk, so that a resumed reading packs as an unbroken one does.

Which shape a part is read in depends on those of the parts before it: one that does again saves a compilation. Another
shape moves the last bits of what is read.
"""

import dataclasses
from collections.abc import Container, Sequence
from pathlib import Path

from jaxalign.data.packing import Shape
from jaxalign.runs.records import append_record, read_records

SHAPES = "shapes.jsonl"
"""The file, beside that of what is read."""


def keep_shapes(path: Path, part: int | str, shapes: Sequence[Shape]) -> None:
    """Write down the shapes that are known once a part is read; to be called before what was read is written."""
    append_record(path, {"part": part, "shapes": [dataclasses.asdict(shape) for shape in shapes]})


def kept_shapes(path: Path, part: int | str) -> list[Shape]:
    """Return the shapes that an unbroken reading knows after a part; none where the part is not there."""
    records = [record for record in read_records(path) if record["part"] == part]
    return [Shape(**shape) for shape in records[-1]["shapes"]] if records else []


def unread(path: Path | None, parts: Sequence[Sequence[str]], known: Container[str]) -> tuple[list[int], list[Shape]]:
    """Return the parts that lack something known, and the shapes that an unbroken reading knows before the first of
    them.

    A part is given by the keys of what it reads, and its shapes are kept under the last of them; without a path none
    are.
    """
    missing = [number for number, keys in enumerate(parts) if any(key not in known for key in keys)]
    before = missing[0] - 1 if missing else -1
    return missing, [] if path is None or before < 0 else kept_shapes(path, parts[before][-1])
