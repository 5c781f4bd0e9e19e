"""What a command prints: any character, to any reader, and as long as there is room."""

import contextlib
import errno
import os
import signal
import sys
from collections.abc import Iterator

from jaxalign.errors import UserError

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)


def show_all_characters() -> None:
    """Let a question mark stand for a character that the encoding of the output lacks, such as the κ of a table."""
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="replace")  # pyright: ignore[reportAttributeAccessIssue]


@contextlib.contextmanager
def unusable_output() -> Iterator[None]:
    """End a command quietly if its reader has left early, as `| head` does.

    Raises:
        UserError: there is no room for what it prints, or its terminal is gone.
    """
    try:
        yield
        if sys.stdout is not None:
            sys.stdout.flush()  # here, because an error at the end of the process is too late
    except BrokenPipeError:
        _print_no_more()
        raise SystemExit(128 + signal.SIGPIPE) from None
    except OSError as error:
        if error.filename is not None or error.errno not in _NO_ROOM:
            raise
        _print_no_more()
        raise UserError(
            f"the command cannot write or print: {error.strerror}; free space, or print to another place"
        ) from error


def _print_no_more() -> None:
    """Send all further output to the null device: Python flushes once more when the process ends."""
    with contextlib.suppress(OSError, ValueError, AttributeError):  # whoever has replaced the output sees to it
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
