"""Which machine this process runs on: what tells two machines apart, also if both have the same name."""

import os
import socket
from pathlib import Path

BOOT = Path("/proc/sys/kernel/random/boot_id")
"""Where Linux has a number of its own for each start of a machine; all containers of the machine see the same."""


def machine() -> str:
    """Return the boot id of this machine and its host name, without spaces; the name alone if there is no boot id.

    Two processes have the same devices at hand only if both agree: containers on one machine have names of their own,
    unless they share its network, and two machines may have one name.
    """
    return "/".join(part for part in (_boot(), socket.gethostname()) if part)


def process_space() -> str | None:
    """Return what two processes share only if they see each other's numbers; None where that is not known."""
    try:
        return f"{machine()} {os.readlink('/proc/self/ns/pid')}" if _boot() else None
    except OSError:
        return None


def _boot() -> str | None:
    try:
        return BOOT.read_text().strip() or None
    except OSError:
        return None
