"""The one exception for bad input, and functions that word its messages."""

import contextlib
import difflib
import errno
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

LONGEST_LINE = 2000
"""The longest error line, in characters. Longer ones are cut, because they may quote a file."""


class UserError(Exception):
    """Bad input: one line that says what was wrong, where, and what to type instead.

    Entry points print it without a traceback and exit with status 2. Any other exception that escapes is our bug.
    What may be secret in an address is left out of the line: names, passwords, and what follows a question mark.
    Control characters, with which a quoted text could write over the screen, are shown as U+FFFD.
    """

    def __init__(self, message: str):
        line = re.sub(r"(://)\S*@", r"\1***@", " ".join(message.split()))
        line = re.sub(r"(://[^\s?]*\?)[^\s']+", r"\1***", line)
        line = "".join(one if one.isprintable() else "\ufffd" for one in line)
        super().__init__(
            line if len(line) <= LONGEST_LINE else f"{line[: LONGEST_LINE // 2]} ... {line[-LONGEST_LINE // 2 :]}"
        )


class NothingToDoError(UserError):
    """Allowed settings that together leave nothing to do; the other jobs of a multirun go on."""


@contextlib.contextmanager
def unusable_paths() -> Iterator[None]:
    """Turn an OSError about a path itself, such as a name that is too long, into a UserError that names the path."""
    try:
        yield
    except OSError as error:
        about_path = error.errno in (errno.ENAMETOOLONG, errno.EACCES, errno.ELOOP, errno.ENOTDIR)
        if not about_path or not isinstance(error.filename, str):
            raise
        raise UserError(f"{error.filename} cannot be used: {error.strerror}; give another path") from error


def did_you_mean(word: str, options: Iterable[str]) -> str:
    """Return the end of an error line: the nearest option, or all options if they are at most 20, or nothing."""
    known = sorted(options)
    near = difflib.get_close_matches(word, known, n=1, cutoff=0.6)
    if near:
        return f"; did you mean '{near[0]}'?"
    return f"; choose from {', '.join(known)}" if 0 < len(known) <= 20 else ""


def shown(value: Any) -> str:
    """Return a value as a user types it on the command line, in one line."""
    if isinstance(value, list | tuple):
        return f"[{','.join(shown(item) for item in value)}]"
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "null"}[value]
    return "''" if value == "" else str(value).replace("\n", r"\n")


def refused_value(value: Any) -> str:
    """Return a value that is not of the type it should be, for an error line: as `shown`, but a text that looks like a
    number, or like true, false or null, stands in quotes.

    >>> refused_value("4"), refused_value(4), refused_value("four")
    ("'4'", '4', 'four')
    """
    other = r"[-+]?[0-9.]+(e[-+]?[0-9]+)?|true|false|null|nan|[-+]?inf"
    looks = isinstance(value, str) and re.fullmatch(other, value, re.IGNORECASE)
    return f"'{value}'" if looks else shown(value)


def without_home(text: str) -> str:
    """Return a text with ~ for the user's home in its paths: summaries and reports are meant to be shared."""
    try:
        home = str(Path.home())
    except RuntimeError:  # a user whom no list of users names, as in some containers
        return text
    begins = re.compile(rf"(?<![\w.~-]){re.escape(home + os.sep)}")  # not in the middle of /mnt/home/me/
    return text if home == os.sep else begins.sub(lambda _: f"~{os.sep}", text)
