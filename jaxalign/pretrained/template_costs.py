"""What the steps of a template cost, in characters that they read and build, and the budget of a rendering."""

import re
from collections.abc import ItemsView, Iterator, KeysView, Sequence, ValuesView
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from jinja2.exceptions import SecurityError

LARGEST_BUILT = 2**24
"""The most characters that a template may write, or build in one step."""

MOST_WORK = 2**27
"""The most characters that all steps of one rendering may read and build together."""

MOST_TURNS = 2**18
"""The most turns of loops and calls of macros that a template may take in one rendering."""

LEAST_WORK, WORK_PER_CHARACTER = 2**22, 2**11
"""The work that is allowed for any messages, and for each of their characters beside it, up to `MOST_WORK`."""

LEAST_TURNS, TURNS_PER_CHARACTER = 2**12, 2**4
"""The turns that are allowed in the same way, up to `MOST_TURNS`. A command renders thousands of texts."""

LEAST_WRITTEN, WRITTEN_PER_CHARACTER = 2**16, 2**3
"""The most characters that a template may write, in the same way."""

MESSAGE_SIZE = 2**8
"""How many characters a message counts beside its own."""

MOST_BITS = 2**14
"""The most bits of a whole number."""

ITEM_COST = 16
"""What an item of a list costs, in characters: about its memory, and the time to visit it."""

DEEPEST = 1000
"""The most levels of lists in lists: Python's own hash of deeper ones ends the process."""

LONGEST_DATE_FIELD = 256
"""The most characters that a date's format makes of each of its characters."""

_ENDS = "\t\n\r\v\f\x1c\x1d\x1e\x85\u2028\u2029"
"""Where a text is indented: tabs and ends of lines."""

_DIGITS = re.compile(r"\d+")

_NESTED = re.compile(r"\{[^{}]*\{")
"""A field of a format in a field."""

_LISTS = (list, tuple, dict, set, KeysView, ItemsView, ValuesView)

LISTING = frozenset(
    ("batch", "items", "list", "map", "reject", "rejectattr", "reverse", "select", "selectattr", "slice")
)
"""Filters that visit each item, but do not look into it."""

_PAIRING = frozenset(("lstrip", "rfind", "rindex", "rpartition", "rsplit", "rstrip", "strip", "trim"))
"""Filters and methods that may compare each character of a text with each of what they look for."""


class _Budget:
    """What is spent in one rendering, of a template and of messages of so many characters."""

    def __init__(self, length: int, asked: int) -> None:
        # A turn may run all of the template that is in no loop of its own.
        self._step = 1 + length // 8
        self._most_work = min(MOST_WORK, LEAST_WORK + WORK_PER_CHARACTER * asked)
        self._most_turns = min(MOST_TURNS, LEAST_TURNS + TURNS_PER_CHARACTER * asked)
        self._work = 0
        self._turns = 0

    def turn(self) -> None:
        self._turns += 1
        if self._turns > self._most_turns:
            raise SecurityError(f"its calls and loops take more than {self._most_turns:,} turns")
        self.work(self._step)

    def work(self, size: int) -> None:
        if size > LARGEST_BUILT:
            raise SecurityError(f"it builds more than {LARGEST_BUILT:,} characters")
        self._work += 1 + size
        if self._work > self._most_work:
            raise SecurityError(f"it reads and builds more than {self._most_work:,} characters in all")


_budget: ContextVar[_Budget] = ContextVar("_budget")


@contextmanager
def budgeted(length: int, asked: int) -> Iterator[None]:
    """Give a rendering its budget: that of a template of `length` characters, and of messages that count as `asked`."""
    before = _budget.set(_Budget(length, asked))
    try:
        yield
    finally:
        _budget.reset(before)


def spend(size: int) -> None:
    """Pay for a step that reads and builds so many characters.

    Raises:
        SecurityError: it, or all steps together, are too many.
    """
    _budget.get().work(size)


def take_turn() -> None:
    """Pay for a turn of a loop or a call of a macro.

    Raises:
        SecurityError: there are too many.
    """
    _budget.get().turn()


def built_size(name: str, value: Any, given: Sequence[Any]) -> int:
    """Return how much a filter or a method of this name reads and builds of a value."""
    texts = sum(len(one) for one in given if isinstance(one, str))
    number = max(map(whole_number, given), default=0)
    if name in LISTING:
        return ITEM_COST * (item_count(value) + texts + (number if name in ("batch", "slice") else 0))
    size = written_size([value, *given])
    spend(size)  # all below works on what is not too large
    if name == "round":
        check_bits(4 * number)
    elif name == "sum" and any(item_count(one) for one in given if not isinstance(one, str)):
        size *= size  # lists, each of which is copied for the next
    elif name == "join":
        size += item_count(value) * max(map(written_size, given), default=0)
    elif name in ("max", "min", "sort", "sum", "unique"):
        size += ITEM_COST * (item_count(value) + texts) + (item_count(value) ** 2 if name == "unique" else 0)
    elif name in _PAIRING:
        size += plain_size(value) * texts // 8 + (ITEM_COST * len(value) if name == "rsplit" else 0)
    elif name in ("split", "splitlines"):
        text, mark = str(value), given[0] if given else None
        size += ITEM_COST * (text.count(mark) if isinstance(mark, str) and mark else len(text))
    elif name in ("replace", "format", "indent", "expandtabs"):
        text = str(value)
        if name == "format":
            size = format_size(text, "%", given)
        elif name == "replace":
            old = str(given[0]) if given else ""
            size += (text.count(old) if old else 1 + len(text)) * max(map(written_size, given), default=0)
        else:
            size += (1 + sum(map(text.count, _ENDS))) * (ITEM_COST + texts + number)
    else:
        size += number
    return size


def format_size(text: str, mark: str, given: Any) -> int:
    """Return how much a format builds at most, in which a mark begins each field."""
    size = written_size(given)
    spend(size + len(text))
    if mark == "{" and _NESTED.search(text.replace("{{", "")):
        raise SecurityError("it formats with a width that is not in the format")
    widths = 0
    for digits in _DIGITS.finditer(text):
        widths += int(digits[0]) if len(digits[0]) < 10 else LARGEST_BUILT
    values = given if isinstance(given, list | tuple) else [given]
    stars = max(map(whole_number, values), default=0) if "*" in text else 0
    return len(text) + widths + text.count(mark) * (size + stars)


def written_size(value: Any) -> int:
    """Return about how many characters a value has when it is written, with all that it holds.

    Raises:
        SecurityError: it has more than `DEEPEST` levels.
    """
    size = 0
    stack = [(value, 0)]
    while stack:
        one, level = stack.pop()
        if level > DEEPEST:
            raise SecurityError(f"it builds more than {DEEPEST:,} levels of lists")
        if isinstance(one, str):
            size += len(one)
        elif isinstance(one, _LISTS):
            size += plain_size(one)
            stack.extend((item, level + 1) for item in one)
            if isinstance(one, dict):
                stack.extend((item, level + 1) for item in one.values())
        else:
            size += plain_size(one) + ITEM_COST + bits_of(one) // 3
        if size > LARGEST_BUILT:
            break
    return size


def plain_size(value: Any) -> int:
    """Return the size of a text or list, without what a list's items hold."""
    return len(value) if isinstance(value, str) else ITEM_COST * item_count(value)


def item_count(value: Any) -> int:
    """Return how many items a loop takes from a value; 0 for what is no list and no text."""
    return len(value) if isinstance(value, (str, range, *_LISTS)) else 0


def bits_of(value: Any) -> int:
    """Return the bits of a whole number, or 0."""
    return value.bit_length() if isinstance(value, int) else 0


def whole_number(value: Any) -> int:
    """Return a whole number without its sign, or 0."""
    return abs(value) if isinstance(value, int) else 0


def check_bits(bits: int) -> None:
    """Refuse a number of so many bits if these are more than `MOST_BITS`.

    Raises:
        SecurityError: they are.
    """
    if bits > MOST_BITS:
        raise SecurityError(f"it builds more than {MOST_BITS:,} bits of a number")
