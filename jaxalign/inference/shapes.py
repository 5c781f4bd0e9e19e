"""The shapes of a scorer's passes on disk. With them, a run that was interrupted packs as an uninterrupted one does.

Texts are scored in parts, and a part uses the shape of an earlier one if it can, which saves a compilation. So its
shape depends on the parts before it, and another shape would change the last bits of the scores.
"""

import dataclasses
from collections.abc import Container, Sequence
from pathlib import Path
from typing import Any

from jaxalign.data.packing import Shape
from jaxalign.runs.records import append_record, read_records

SHAPES = "shapes.jsonl"
"""The name of the file. It is in the same folder as the file of the scores."""


def keep_shapes(path: Path, part: int | str, shapes: Sequence[Shape]) -> None:
    """Write down the shapes that are known after a part was scored. Call it before the part's scores are written."""
    append_record(path, {"part": part, "shapes": [dataclasses.asdict(shape) for shape in shapes]})


def kept_shapes(path: Path, part: int | str) -> list[Shape]:
    """Return the shapes that an uninterrupted run knows after a part; none if the part is not in the file.

    Raises:
        UserError: a line is not a record of shapes.
    """
    found: list[Shape] = []
    for record in read_records(path, shapes=[_is_shape]):
        if record.get("part") == part:
            found = [Shape(**kept) for kept in record["shapes"]]
    return found


def _is_shape(found: Any) -> bool:
    names = {field.name for field in dataclasses.fields(Shape)}
    return isinstance(found, dict) and found.keys() == names and all(type(n) is int and n >= 0 for n in found.values())


def unread(path: Path | None, parts: Sequence[Sequence[str]], known: Container[str]) -> tuple[list[int], list[Shape]]:
    """Return the numbers of the parts that have an unknown key, and the shapes to begin the first of these parts with.

    The shapes are those that an uninterrupted run knows before that part.

    Args:
        path: the file of the shapes; None for a run that keeps nothing, and so knows no shapes.
        parts: for each part the keys of its texts. The part's shapes are kept under the last key.
        known: the keys whose scores are known.
    """
    missing = [number for number, keys in enumerate(parts) if any(key not in known for key in keys)]
    before = missing[0] - 1 if missing else -1
    return missing, [] if path is None or before < 0 else kept_shapes(path, parts[before][-1])
