"""The values that a model's file claims, checked for type and range when they are read.

A file may come from anywhere. So a size is bounded here, before anything is allocated or looped over because of it.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any, cast

from jaxalign.errors import UserError, refused_value, shown

LARGEST = 2**31 - 1
"""The largest whole number, if nothing else is said."""

_NEEDED: Any = object()


@dataclasses.dataclass(frozen=True)
class Claims:
    """The keys and values of a file. A value that is null counts as missing.

    Each method returns the value of a key, or the default where the key is missing.

    Raises:
        UserError: the key is missing and there is no default, or the value has another type or range.
    """

    values: Mapping[str, Any]
    place: str
    """The file, or the part of it: error lines begin with it."""
    hint: str
    """What the user should do: error lines end with it."""
    owner: str = ""
    """What needs the keys, such as "a llama model"."""

    def get(self, key: str) -> Any:
        """Return the value, of whatever type; None if it is missing."""
        return self.values.get(key)

    def whole(self, key: str, default: int = _NEEDED, low: int = 1, high: int = LARGEST) -> int:
        """Return a whole number from `low` to `high`."""
        value = self._found(key, default)
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise self.refused(key, value, f"a whole number from {low} to {high}")
        return value

    def number(self, key: str, default: float = _NEEDED, *, above: float = -math.inf, most: float = math.inf) -> float:
        """Return a finite number that is greater than `above` and at most `most`."""
        value = self._found(key, default)
        try:
            found = math.nan if isinstance(value, bool) or not isinstance(value, int | float) else float(value)
        except OverflowError:
            found = math.nan
        if not (math.isfinite(found) and above < found <= most):
            words = "a finite number" + (f" above {above:g}" if math.isfinite(above) else "")
            raise self.refused(key, value, words + (f", up to {most:g}" if math.isfinite(most) else ""))
        return found

    def flag(self, key: str, default: bool = _NEEDED) -> bool:
        """Return true or false."""
        value = self._found(key, default)
        if not isinstance(value, bool):
            raise self.refused(key, value, "true or false")
        return value

    def text(self, key: str, default: str = _NEEDED) -> str:
        """Return a text."""
        value = self._found(key, default)
        if not isinstance(value, str):
            raise self.refused(key, value, "a text")
        return value

    def texts(self, key: str, default: Sequence[str] = _NEEDED) -> list[str]:
        """Return a list of texts."""
        value = self._found(key, default)
        if not isinstance(value, list | tuple) or not all(isinstance(item, str) for item in value):
            raise self.refused(key, value, "a list of texts")
        return list(value)

    def part(self, key: str) -> "Claims":
        """Return the keys and values that stand under a key; none if it is missing."""
        value = self._found(key, {})
        if not isinstance(value, Mapping):
            raise self.refused(key, value, "keys and values")
        return dataclasses.replace(self, values=cast(Mapping[str, Any], value), place=f"{self.place}: {key}")

    def refused(self, key: str, value: Any, words: str) -> UserError:
        """Return the error of a value that will not do; `words` say what it must be."""
        told = brief(refused_value(value) if isinstance(value, str) else value)
        return UserError(f"{self.place}: {key}={told} is not allowed: it must be {words}; {self.hint}")

    def _found(self, key: str, default: Any) -> Any:
        value = self.values.get(key)
        if value is not None:
            return value
        if default is _NEEDED:
            needs = f", which {self.owner} needs" if self.owner else ""
            raise UserError(f"{self.place} has no '{key}'{needs}; {self.hint}")
        return default


def brief(value: Any) -> str:
    """Return a value of any type and size in a few words, for an error line.

    >>> brief("x" * 999)[-5:], brief([[1]]), brief(True)
    ('xx...', 'a list', 'true')
    """
    if isinstance(value, Mapping):
        return "keys and values"
    if isinstance(value, list | tuple):
        return "a list"
    if isinstance(value, str):
        value = value[:101].encode("ascii", "backslashreplace").decode()
    text = shown(value)
    return text if len(text) <= 100 else f"{text[:97]}..."
