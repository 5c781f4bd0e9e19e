"""What stored JSON must look like: shapes of values, and the search for the first value that has another one."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import UnionType
from typing import Any

from jaxalign.runs.reading import is_cut

Expected = Any
"""What a value must be: a type, one of a set of texts, the keys of an object, [each item of a list], or `Maybe`;
a tuple for a list of that length."""


@dataclass(frozen=True)
class Maybe:
    """A value that may also be null or missing."""

    shape: Expected


def flaw(found: Any, shape: Expected) -> str | None:
    """Return the key of the first value that is not as `shape` says, "" for the value itself; None if all are.

    >>> flaw({"stages": [{"steps": 1}, {"steps": "2"}]}, {"stages": [{"steps": int}]})
    'stages.2.steps'
    """
    if isinstance(shape, Maybe):
        return None if found is None else flaw(found, shape.shape)
    if isinstance(shape, dict):
        if not isinstance(found, Mapping):
            return ""
        absent = {key for key, one in shape.items() if key not in found and not isinstance(one, Maybe)}
        inner = ((key, "" if key in absent else flaw(found.get(key), one)) for key, one in shape.items())
    elif isinstance(shape, list):
        if not isinstance(found, list):
            return ""
        inner = ((str(number), flaw(one, shape[0])) for number, one in enumerate(found, start=1))
    elif isinstance(shape, tuple):
        if not isinstance(found, list | tuple) or len(found) != len(shape):
            return ""
        inner = ((str(number), flaw(*both)) for number, both in enumerate(zip(found, shape, strict=True), start=1))
    else:
        return None if _is(found, shape) else ""
    return next((f"{key}.{below}".rstrip(".") for key, below in inner if below is not None), None)


def _is(found: Any, shape: type | UnionType | set[str]) -> bool:
    if isinstance(shape, set):
        return isinstance(found, str) and found in shape
    if not isinstance(found, shape) or (isinstance(found, bool) and shape is not bool):
        return False
    if isinstance(found, str):
        return not is_cut(found)
    try:
        return not isinstance(found, int) or math.isfinite(float(found))
    except OverflowError:  # a whole number that no program computes with, and none can write with decimals
        return False
