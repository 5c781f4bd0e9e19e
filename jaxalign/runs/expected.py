"""What a stored value must hold, such as summary.json, a record or config.yaml: said once, and checked in one way."""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from types import UnionType
from typing import Any

from jaxalign.errors import UserError
from jaxalign.runs.reading import is_cut

Expected = Any
"""What a value must be: a type or a union of types (true, false, NaN and infinities are no numbers), one of a set of
texts, the keys of an object with what each of them must be, [each item of a list], a tuple for a list of that length,
`Each`, `Maybe`, `Besides`, or a function that returns whether the value will do."""


@dataclass(frozen=True)
class Each:
    """An object with any keys, each of whose values must be so."""

    expected: Expected


@dataclass(frozen=True)
class Maybe:
    """A value that may also be null, and if `missing`, missing."""

    expected: Expected
    missing: bool = True


@dataclass(frozen=True)
class Besides:
    """A value that must be so, and whose parts must fit together: `rule` returns the key that does not fit, or None."""

    expected: Expected
    rule: Callable[[Any], str | None]


_ABSENT: Any = object()


def flaw(found: Any, expected: Expected) -> tuple[str | int, ...] | None:
    """Return where a value is not as expected: the keys, and the numbers from 1 in lists. None if all is as expected.

    >>> flaw({"models": [{"name": "base"}, {}]}, {"models": [{"name": str}]})
    ('models', 2, 'name')
    """
    if isinstance(expected, Maybe):
        return None if found is None else flaw(found, expected.expected)
    if isinstance(expected, Besides):
        if (below := flaw(found, expected.expected)) is not None:
            return below
        return None if (key := expected.rule(found)) is None else (key,)
    if isinstance(expected, dict | Each):
        if not isinstance(found, Mapping):
            return ()
        keys = dict.fromkeys(found, expected.expected) if isinstance(expected, Each) else expected
        inner = ((key, found.get(key, _default(one)), one) for key, one in keys.items())
    elif isinstance(expected, list | tuple):
        if not isinstance(found, list | tuple) or (isinstance(expected, tuple) and len(found) != len(expected)):
            return ()
        each = expected if isinstance(expected, tuple) else expected * len(found)
        inner = zip(range(1, len(found) + 1), found, each, strict=True)
    else:
        return None if _is(found, expected) else ()
    return next(((key, *below) for key, value, one in inner if (below := flaw(value, one)) is not None), None)


def _default(expected: Expected) -> Any:
    return None if isinstance(expected, Maybe) and expected.missing else _ABSENT


def _is(found: Any, expected: Any) -> bool:
    if isinstance(expected, set):
        return isinstance(found, str) and found in expected
    if not isinstance(expected, type | UnionType):
        return expected(found)
    if not isinstance(found, expected) or (isinstance(found, bool) and expected is not bool):
        return False
    if isinstance(found, str):
        return not is_cut(found)
    try:
        return not isinstance(found, int | float) or math.isfinite(found)
    except OverflowError:  # a whole number that no program computes with, and none can write with decimals
        return False


def damage(found: Any, expected: Expected) -> str | None:
    """Return what is wrong with a stored object or list, in words; None if it is as expected.

    >>> damage({"models": [{"about": {}}]}, {"models": [{"about": {"name": str}}]})
    "models 1, about: 'name' is missing or damaged"
    >>> damage({}, [str])
    'not a JSON list'
    """
    path = flaw(found, expected)
    if path is None:
        return None
    words: list[str] = []
    for one in path:
        if isinstance(one, int) and words:
            words[-1] += f" {one}"
        else:
            words.append(str(one))
    if not words:
        return f"not a JSON {'list' if isinstance(expected, list) else 'object'}"
    place = ", ".join(words[:-1])
    return f"{place}{': ' if place else ''}'{words[-1]}' is missing or damaged"


def as_expected(found: Any, expected: Expected, place: object, hint: str) -> Any:
    """Return a stored value; UserError with its place, such as the file, and the hint if it is not as expected."""
    if problem := damage(found, expected):
        raise UserError(f"{place} is damaged ({problem}); {hint}")
    return found


def column_is(column: Iterable[Any], expected: Expected) -> bool:
    """Return whether all values of a column of records, read by `parse_json_lines`, are as expected.

    Of values of a simple type, it looks at the set of their types, which takes a fraction of the time.
    """
    if isinstance(expected, set):
        return set(column) <= expected
    if isinstance(expected, type | UnionType):
        column = list(column)
        types = set(map(type, column))
        whole = all(issubclass(one, expected) and (one is not bool or expected is bool) for one in types)
        return whole and (float not in types or all(math.isfinite(one) for one in column if type(one) is float))
    return all(flaw(value, expected) is None for value in column)
