"""Files that others wrote: bytes, text, JSON and YAML, each read by one function that takes them whole or refuses them.

What is refused gets one line with the file and, where it has lines, the line. A named pipe or a device is never opened,
because reading it may never end.
"""

import json
import math
import os
import re
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from jaxalign.errors import UserError

LARGEST_YAML = 1_000_000
"""The largest YAML file, in bytes, and the most values that one may hold when each alias is written out."""

_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFSOCK: "a socket",
}

# A pair of surrogates is one character; what the group finds stands alone. The last part passes over `\\` and the like.
_ESCAPES = re.compile(
    r"\\(?:u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|(u[dD][89a-fA-F][0-9a-fA-F]{2})|.)", re.DOTALL
)
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")
_HALF = re.compile("[\ud800-\udfff]")


def is_cut(text: str) -> bool:
    """Return whether a text holds half of a character (a lone surrogate), so that no file or tokenizer can take it."""
    return _HALF.search(text) is not None


def not_a_file(path: str | Path) -> str:
    """Return why a path is no regular file, such as "it is a named pipe"; "" if it is one."""
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        return "it does not exist"
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        return f"it cannot be looked up: {getattr(error, 'strerror', None) or error}"
    return "" if stat.S_ISREG(mode) else f"it is {_KINDS.get(stat.S_IFMT(mode), 'no regular file')}"


def check_regular(folder: Path, hint: str, passed_over: Callable[[str], bool]) -> None:
    """Raise UserError if a folder holds something that cannot be copied, such as a named pipe or a link to a folder.

    Names that are `passed_over` do not count. The line ends in `hint`.
    """

    def fault(path: Path) -> str:
        if path.is_dir():
            return "it is a link to a folder" if path.is_symlink() else ""
        return not_a_file(path) or ("" if os.access(path, os.R_OK) else "it may not be read")

    def failed(error: OSError) -> None:
        raise UserError(f"{error.filename} cannot be copied: {error.strerror}; {hint}") from error

    for place, folders, files in os.walk(folder, onerror=failed):
        folders[:] = [name for name in folders if not passed_over(name)]
        for path in (Path(place, name) for name in (*folders, *files) if not passed_over(name)):
            if why := fault(path):
                raise UserError(f"{path} cannot be copied: {why}; {hint}")


def cut_while_read(path: str | Path) -> UserError:
    """Return the error of a file that has lost bytes since a command opened it."""
    return UserError(
        f"{path} has become shorter while this command read it: leave it alone until the command has ended, and type "
        "the command again"
    )


def read_bytes(path: str | Path, *, largest: int | None = None, hint: str = "") -> bytes:
    """Return the content of a regular file of at most `largest` bytes.

    Raises:
        UserError: there is no such file, or it cannot be read; `hint` says what to do.
    """
    end = f"; {hint}" if hint else ""
    if why := not_a_file(path):
        raise UserError(f"{path} cannot be read: {why}{end}")
    try:
        with open(path, "rb") as file:
            data = file.read() if largest is None else file.read(largest + 1)
    except (OSError, MemoryError) as error:
        why = getattr(error, "strerror", None) or "it is too large"
        raise UserError(f"{path} cannot be read: {why}{end}") from error
    if largest is not None and len(data) > largest:
        raise UserError(f"{path} is larger than {largest:,} bytes, the most that is read of such a file{end}")
    return data


def read_text(path: str | Path, *, largest: int | None = None, hint: str = "") -> str:
    """Return the text of a UTF-8 file, with its line ends and without a byte order mark.

    Raises:
        UserError: the file cannot be read, is not UTF-8, or holds a NUL; `hint` says what to do.
    """
    try:
        text = read_bytes(path, largest=largest, hint=hint).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(
            f"{path} is not UTF-8 text (byte {error.start}){f'; {hint}' if hint else ': save it as UTF-8'}"
        ) from error
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        raise UserError(
            f"{path} line {line} holds a NUL, so it is not text{f'; {hint}' if hint else ': save it as UTF-8'}"
        )
    return text


def parse_json(
    text: str, path: str | Path, line: int | None = None, *, finite: bool = True, expected: str = "", hint: str = ""
) -> Any:
    """Return the value of a JSON text.

    Args:
        text: the text.
        path: where it comes from, for error lines.
        line: the line of the file that it is; None if it is the whole file.
        finite: whether NaN, Infinity and decimal numbers beyond the range of a float are refused. JSON has none of
            them, but Python writes and reads them. Whole numbers beyond that range are refused in any case.
        expected: what the text should be, for one that is not JSON.
        hint: what to do.

    Raises:
        UserError: it is not JSON, an object has a key twice, a text holds half of a character (a lone surrogate), a
            number cannot be read, or it is nested too deeply.
    """

    def refusal(what: str, inside: int = 1) -> UserError:
        return UserError(f"{path} line {inside if line is None else line} {what}{f'; {hint}' if hint else ''}")

    try:
        kind = "finite" if finite else "any"
        value = (_BOUNDED if _LONG.search(text) else _DECODERS)[kind].decode(text)
    except json.JSONDecodeError as error:
        what = f"is not JSON ({error.msg})" + (f": expected {expected}" if expected else "")
        raise refusal(what, error.lineno) from error
    except _FlawError as error:
        where = f"{path}" if line is None else f"{path} line {line}"
        raise UserError(f"{where} {error}{f'; {hint}' if hint else ''}") from error
    except RecursionError as error:
        raise refusal("is JSON nested too deeply") from error
    if _SURROGATE.search(text) and (lone := next((m for m in _ESCAPES.finditer(text) if m[1]), None)):
        inside = text.count("\n", 0, lone.start()) + 1
        raise refusal(f"holds \\{lone[1]} alone, which is half of a character: write the whole of it", inside)
    return value


def parse_json_lines(text: str) -> list[Any] | None:
    """Return the values of the lines of a text, each of which ends in a newline; what follows the last one is left out.

    None if `parse_json` would refuse a line, or has to look at it more closely: this is the fast way for what a program
    wrote. NaN, Infinity and numbers beyond the range of a float are read.
    """
    if _SURROGATE.search(text) or _LONG.search(text):
        return None
    values = []
    try:
        for line in text.split("\n")[:-1]:
            value, end = _DECODERS["any"].raw_decode(line)
            if end != len(line):
                return None
            values.append(value)
    except (ValueError, RecursionError):
        return None
    return values


class _FlawError(ValueError):
    """What JSON's own parser accepts and we do not."""


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        seen: set[str] = set()
        twice = next(name for name, _ in pairs if name in seen or seen.add(name))
        raise _FlawError(f"holds an object with the key {twice!r:.60} twice")
    return found


def _number(written: str) -> float:
    value = float(written)
    if not math.isfinite(value):
        raise _FlawError(f"holds {written:.40}, which is not a finite number")
    return value


def _whole_number(written: str) -> int:
    # Python has whole numbers of any size, and an error wherever one becomes a float; its own limit is 4300 digits.
    if not math.isfinite(float(written)):
        raise _FlawError(f"holds a number with too many digits ({written:.20}...)")
    return int(written)


def _constant(name: str) -> float:
    raise _FlawError(f"holds {name}, which is not a number in JSON")


# Decoders are made once: a file of records has a text in each line.
_DECODERS = {
    "any": json.JSONDecoder(object_pairs_hook=_object),
    "finite": json.JSONDecoder(object_pairs_hook=_object, parse_float=_number, parse_constant=_constant),
}

_LONG = re.compile("[0-9]{309}")
"""Only such a row of digits can be a whole number beyond the range of a float; the slower decoders are for it."""
_BOUNDED = {
    "any": json.JSONDecoder(object_pairs_hook=_object, parse_int=_whole_number),
    "finite": json.JSONDecoder(
        object_pairs_hook=_object, parse_int=_whole_number, parse_float=_number, parse_constant=_constant
    ),
}


def check_yaml(path: str | Path) -> str:
    """Return the text of a YAML file of at most `LARGEST_YAML` bytes, whose top is keys and values, or nothing.

    Raises:
        UserError: it cannot be read, is not YAML, has a key twice, is nested too deeply, holds something else, or its
            aliases stand for more than `LARGEST_YAML` values, or for themselves.
    """
    text = read_text(path, largest=LARGEST_YAML)
    try:
        top = yaml.compose(text, Loader=yaml.SafeLoader)
        if _values(top, {}) > LARGEST_YAML:
            raise UserError(f"{path} has aliases (*name) that stand for more than {LARGEST_YAML:,} values: write less")
    except RecursionError as error:
        raise UserError(f"{path} is YAML nested too deeply") from error
    except (yaml.YAMLError, ValueError) as error:
        raise UserError(f"{path} is not YAML: {error}") from error
    if top is not None and not isinstance(top, yaml.MappingNode):
        empty = isinstance(top, yaml.ScalarNode) and top.tag == "tag:yaml.org,2002:null"
        if not empty:
            raise UserError(f"{path} must hold keys and values (key: value)")
    return text


def _values(node: yaml.Node | None, known: dict[int, int | None]) -> int:
    """Return the number of values in a node with each alias written out; ValueError for a key that occurs twice."""
    if node is None or isinstance(node, yaml.ScalarNode):
        return 1
    if id(node) not in known:
        known[id(node)] = None
        below: list[yaml.Node] = []
        keys: set[str] = set()
        for item in node.value:
            below += item if isinstance(item, tuple) else [item]
            key = item[0].value if isinstance(item, tuple) and isinstance(item[0], yaml.ScalarNode) else None
            if key is not None and key in keys:
                raise ValueError(f"line {item[0].start_mark.line + 1} has the key {key!r:.60} a second time")
            keys |= {key} if key is not None else set()
        known[id(node)] = 1 + sum(_values(one, known) for one in below)
    size = known[id(node)]
    if size is None:
        raise ValueError(f"the alias in line {node.start_mark.line + 1} stands for itself")
    return size
