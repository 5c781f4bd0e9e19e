"""Who works in a folder of a bucket: a record with a sign of life, because object stores have no locks.

The holder of a lease counts up a number in its record. Another process takes the lease over once the number has stood
still for `STALE` seconds of its own clock, so the clocks of two machines need not agree.
"""

import contextlib
import json
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from jaxalign.errors import UserError
from jaxalign.parallel.machine import process_space
from jaxalign.runs.bucket import Bucket

BEAT = 15.0
"""Seconds between two signs of life."""

STALE = 75.0
"""Seconds without a sign of life after which a lease may be taken over."""

SETTLE = {True: 2.0, False: 0.1}
"""Seconds until a new lease is read again, in a bucket (True) and in a folder: if two processes began together, the
one that wrote later keeps it."""


class LeaseLostError(UserError):
    """The lease was taken over by another process, or deleted, so that this one must stop."""


_PROCESS = secrets.token_hex(8)
_gone: set[str] = set()  # owners without a sign of life; their other leases are taken at once


@contextlib.contextmanager
def leased(bucket: Bucket, name: str, what: str, say: Callable[[str], None]) -> Iterator[Callable[[], None]]:
    """Hold the lease in the file `name`; yield a function that raises LeaseLostError if another process has it now.

    Args:
        bucket: where the file is.
        name: its name.
        what: what the lease is for, in words, for error lines.
        say: is told that a lease is waited for.

    Raises:
        UserError: another process holds the lease, and is alive.
    """
    owner = f"{_PROCESS}-{os.getpid()}"
    mine = {"owner": owner, "host": socket.gethostname(), "process": os.getpid(), "machine": process_space()}
    mine["since"] = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())

    def write(beat: int) -> None:
        bucket.write(name, json.dumps({**mine, "beat": beat}, indent=1).encode())

    def check() -> None:
        found = _read(bucket, name)
        if found is None or found.get("owner") != owner:
            by = "deleted" if found is None else f"taken over by {_who(found)}"
            raise LeaseLostError(f"the lease {bucket.shown(name)} was {by}: this job stops, and leaves {what} as it is")

    def beat() -> None:
        number = 0
        while not ended.wait(BEAT):
            number += 1
            with contextlib.suppress(UserError):  # the network may come back; who copies next checks, too
                check()
                write(number)

    _wait(bucket, name, owner, what, say)
    write(0)
    time.sleep(SETTLE[bucket.is_remote])
    found = _read(bucket, name)
    if found is None or found.get("owner") != owner:
        raise UserError(_refusal(bucket, name, what, found or {}))
    ended = threading.Event()
    thread = threading.Thread(target=beat, name="lease", daemon=True)
    thread.start()
    try:
        yield check
    finally:
        ended.set()
        thread.join(BEAT)  # not longer, if it waits for the network
        with contextlib.suppress(UserError):  # it ends by itself; what the work raised counts more
            check()
            bucket.delete(name)


def _wait(bucket: Bucket, name: str, owner: str, what: str, say: Callable[[str], None]) -> None:
    """Return once nobody alive holds the lease; UserError at a sign of life."""
    found = _read(bucket, name)
    if found is None or found.get("owner") == owner or _is_gone(found):
        return
    say(f"{what} was last used by {_who(found)}; waiting up to {STALE:.0f} s for a sign of life")
    deadline = time.monotonic() + STALE
    while time.monotonic() < deadline:
        time.sleep(min(1.0, STALE / 10))
        now = _read(bucket, name)
        if now is None:
            return
        if now != found:
            raise UserError(_refusal(bucket, name, what, now))
    _gone.add(str(found.get("owner")))


def _refusal(bucket: Bucket, name: str, what: str, found: dict[str, Any]) -> str:
    return (
        f"{what} is in use by {_who(found)}: wait for it or stop it; this command takes over {STALE:.0f} s after its "
        f"last sign of life, or at once when {bucket.shown(name)} is deleted, which stops the other job, too"
    )


def _who(found: dict[str, Any]) -> str:
    return f"process {found.get('process')} on {found.get('host')} (since {found.get('since')})"


def _read(bucket: Bucket, name: str) -> dict[str, Any] | None:
    content = bucket.read(name)
    try:
        found = None if content is None else json.loads(content)
    except (ValueError, RecursionError):
        found = {}
    return found if found is None or isinstance(found, dict) else {}


def _is_gone(found: dict[str, Any]) -> bool:
    """Return whether the owner is known to have ended: found so before, or a process of this machine that is gone."""
    if found.get("owner") in _gone:
        return True
    process, here = found.get("process"), process_space()
    if here is None or found.get("machine") != here or not isinstance(process, int) or process < 1:
        return False
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return True
    except OSError:
        return False
    return False
