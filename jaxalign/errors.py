"""The one exception for bad input."""

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """Bad input: one line that says what was wrong, where, and what to type instead.

    Entry points print it without a traceback and exit with status 2. Everything else that escapes is our bug.
    """

    def __init__(self, message: str):
        super().__init__(" ".join(message.split()))


def did_you_mean(word: str, options: Iterable[str]) -> str:
    """Return the end of an error line: the nearest option, or the options themselves where they are few."""
    known = sorted(options)
    near = difflib.get_close_matches(word, known, n=1, cutoff=0.6)
    if near:
        return f"; did you mean '{near[0]}'?"
    return f"; choose from {', '.join(known)}" if 0 < len(known) <= 20 else ""
