"""Several processes that find each other: what the environment says of them, and their meeting at the first one.

JAX's own meeting ends a process without a word of ours if another one is missing, so ours comes before it.
"""

import contextlib
import ipaddress
import itertools
import os
import re
import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass

from jaxalign.errors import UserError
from jaxalign.parallel.machine import machine

ADDRESS, COUNT, NUMBER = "JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID"
"""The environment variables with the address of the first of several processes, their number, and which one this is."""

SECONDS = "JAXALIGN_JOIN_SECONDS"
"""The environment variable with the seconds after which a process no longer waits for the others."""

MOST_SECONDS = 31 * 24 * 3600
"""The largest number of these seconds, a month; sockets cannot wait for as long as one likes."""

PORT = 8476
"""The first process's port if nothing else names one. Google's firewall opens it; 8482, JAX's own, it does not."""

_HELLO, _GO, _LATE = b"jaxalign", b"go", b"late"


@dataclass(frozen=True)
class Membership:
    """A process of several: its number of all, and the address, HOST:PORT, at which the first one waits."""

    address: str
    count: int
    number: int
    many_hosts: bool = False
    """Whether the environment says that they run on several hosts."""

    @property
    def host(self) -> str:
        """The host of the first process."""
        return self.address.rpartition(":")[0].strip("[]")

    @property
    def port(self) -> int:
        """The port of the first process."""
        return int(self.address.rpartition(":")[2])


def expected_processes(environment: Mapping[str, str] = os.environ) -> int:
    """Return the number of processes that the environment names: ours, Slurm's, Open MPI's or a TPU pod's.

    Raises:
        UserError: a variable is not a number.
    """
    named = _named_count(environment)
    return named or (2 if ADDRESS in environment else 1)  # at least


def membership(environment: Mapping[str, str] = os.environ) -> Membership | None:
    """Return which of several processes this one is; None if it is alone.

    Our variables go before those of Slurm, of Open MPI and of a TPU pod.

    Raises:
        UserError: a variable is missing or makes no sense; or several hosts shall meet at an address that each of them
            has for itself.
    """
    count = expected_processes(environment)
    if count == 1:
        return None
    if not _named_count(environment):
        raise UserError(f"{ADDRESS} is set, but {COUNT} is not: give the number of processes")
    ranks = (NUMBER, "SLURM_PROCID", "OMPI_COMM_WORLD_RANK", "TPU_WORKER_ID")
    number = next((found for name in ranks if (found := _number(environment, name)) is not None), None)
    if number is None:
        raise UserError(f"the environment names {count} processes, but not which one this is: set {NUMBER}")
    if number >= count:
        raise UserError(f"this is process {number}, and there are {count} (0 to {count - 1}): set {NUMBER} and {COUNT}")
    hosts = _number(environment, "SLURM_STEP_NUM_NODES") or len(_pod(environment)) or 1
    local = _number(environment, "OMPI_COMM_WORLD_LOCAL_SIZE") or count
    found = Membership(_address(environment), count, number, hosts > 1 or local < count)
    if not re.fullmatch(r"(\[[0-9a-fA-F:]+\]|[^\s:\[\]]+):[0-9]{1,5}", found.address) or found.port > 65535:
        raise UserError(f"{ADDRESS}={found.address} is not HOST:PORT")
    if found.many_hosts and is_loopback(found.host):
        raise UserError(
            f"{ADDRESS}={found.address} is another place on each host, and {count} processes are on several: give the "
            "address of the first host in their network"
        )
    return found


def is_first_named(environment: Mapping[str, str] = os.environ) -> bool:
    """Return whether this process is the first of several, or alone, by what the environment says.

    It is so, too, where the environment makes no sense: that is said where the processes join.
    """
    with contextlib.suppress(UserError):
        mine = membership(environment)
        return mine is None or mine.number == 0
    return True


def is_loopback(host: str) -> bool:
    """Return whether a host's name or address can only mean the machine that uses it."""
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return host == "localhost" or host.endswith(".localhost")


def join_seconds(environment: Mapping[str, str] = os.environ) -> int:
    """Return the seconds after which a process no longer waits for the others: 300 if the environment says nothing.

    Raises:
        UserError: they are no number of seconds, or more than `MOST_SECONDS`.
    """
    found = _number(environment, SECONDS)
    if found is not None and found > MOST_SECONDS:
        raise UserError(f"{SECONDS}={found} in the environment is too long: give at most {MOST_SECONDS} seconds")
    return 300 if found is None else found


def meet(mine: Membership, seconds: float) -> list[str]:
    """Wait until all processes are there; return their machines (see `machine`), in the order of the processes.

    A process that gave up or ended before the last one came is not there.

    Raises:
        UserError: some are missing after so many seconds.
    """
    end = time.monotonic() + seconds
    return _receive(mine, seconds, end) if mine.number == 0 else _report(mine, seconds, end)


def _receive(mine: Membership, seconds: float, end: float) -> list[str]:
    machines: dict[int, str] = {0: machine()}
    waiting: dict[int, socket.socket] = {}
    with contextlib.ExitStack() as stack:
        try:
            family = socket.AF_INET6 if socket.has_dualstack_ipv6() else socket.AF_INET
            server = socket.create_server(("", mine.port), family=family, dualstack_ipv6=family == socket.AF_INET6)
        except OSError as error:
            raise UserError(
                f"port {mine.port}, at which the other processes shall find this one, cannot be used: "
                f"{os.strerror(error.errno or 0)}; give another one in {ADDRESS}"
            ) from error
        stack.enter_context(server)
        while len(machines) < mine.count:
            server.settimeout(min(1.0, max(0.01, end - time.monotonic())))  # short, so that Ctrl-C is heard
            try:
                caller = stack.enter_context(server.accept()[0])
                caller.settimeout(5.0)
                hello, number, where = caller.makefile("rb").readline(400).split()
                if hello == _HELLO and 0 < int(number) < mine.count:
                    waiting[int(number)], machines[int(number)] = caller, where.decode()
            except (OSError, ValueError):  # nobody yet, or something else that looked at this port
                pass
            for gone in [number for number, caller in waiting.items() if not _waits(caller)]:
                del waiting[gone], machines[gone]
            if time.monotonic() > end:
                _answer(waiting, _LATE)
                absent = (str(number) for number in range(mine.count) if number not in machines)
                missing = list(itertools.islice(absent, 9))  # the environment may name any number of processes
                few = ", ".join(missing[:8]) + (", ..." if len(missing) > 8 else "")
                alone = " (which only this host can reach)" if is_loopback(mine.host) else ""
                raise UserError(
                    f"after {seconds:.0f} s, {len(machines)} of {mine.count} processes are at {mine.address}{alone}; "
                    f"missing: {few}: start them all, or set {COUNT} to those that there are"
                )
        found = [machines[number] for number in range(mine.count)]
        _answer(waiting, b" ".join([_GO, *(where.encode() for where in found)]))
    return found


def _waits(caller: socket.socket) -> bool:
    """Return whether a process that called has not closed its connection."""
    patience = caller.gettimeout()
    caller.settimeout(0)
    try:
        return bool(caller.recv(1, socket.MSG_PEEK))
    except BlockingIOError:  # it is there, and says nothing
        return True
    except OSError:
        return False
    finally:
        caller.settimeout(patience)


def _is_here(host: str) -> bool:
    """Return whether this machine takes a host's name for itself."""
    with contextlib.suppress(OSError):
        return any(is_loopback(str(found[4][0])) for found in socket.getaddrinfo(host, None))
    return False


def _answer(waiting: Mapping[int, socket.socket], line: bytes) -> None:
    for caller in waiting.values():
        with contextlib.suppress(OSError):
            caller.sendall(line + b"\n")
            caller.recv(1)  # until it has closed, because who closes first keeps the port for a while


def _report(mine: Membership, seconds: float, end: float) -> list[str]:
    reason = "nothing answers"
    while time.monotonic() < end:
        try:
            with socket.create_connection((mine.host, mine.port), timeout=5.0) as caller:
                caller.sendall(b" ".join([_HELLO, str(mine.number).encode(), machine().encode()]) + b"\n")
                caller.settimeout(max(0.01, end + 5 - time.monotonic()))
                word, *machines = caller.makefile("rb").readline().split() or [b""]
            if word == _GO and len(machines) == mine.count:
                return [where.decode() for where in machines]
            if word == _LATE:
                raise SystemExit(2)  # the first process says which are missing
            reason = "it does not answer as the first process does"
        except OSError as error:
            reason = error.strerror or str(error)
        time.sleep(0.2)
    alone = ", which here is an address of this host itself" if _is_here(mine.host) else ""
    raise UserError(
        f"process {mine.number} of {mine.count} did not reach the first process at {mine.address}{alone}, for "
        f"{seconds:.0f} s ({reason}): start it there, open the port, or correct {ADDRESS}"
    )


def _address(environment: Mapping[str, str]) -> str:
    if ADDRESS in environment:
        return environment[ADDRESS]
    port = _number(environment, "JAX_COORDINATOR_PORT")
    if nodes := environment.get("SLURM_STEP_NODELIST"):
        # Jobs may share a node, so the port comes from the job's number.
        return f"{first_node(nodes)}:{port or 61440 + (_number(environment, 'SLURM_JOB_ID') or 0) % 4096}"
    if pod := _pod(environment):
        return f"{pod[0]}:{port or PORT}"
    found = re.search(r"tcp6?://\[?([^,\]/]+?)(?:[,\]]|:\d+(?:$|;))", environment.get("OMPI_MCA_orte_hnp_uri", ""))
    if found is None:
        raise UserError(f"the environment names several processes, but not where the first one is: set {ADDRESS}")
    host = f"[{found[1]}]" if ":" in found[1] else found[1]
    return f"{host}:{port or PORT}"


def first_node(nodes: str) -> str:
    """Return the first host of a list as Slurm writes it.

    >>> first_node("tpu[007-010,12]-a,login1")
    'tpu007-a'
    """
    found = re.match(r"([^\[,]*)(?:\[([^\],-]*)[^\]]*\])?([^\[,]*)", nodes)
    return "".join(part or "" for part in found.groups()) if found else nodes


def _named_count(environment: Mapping[str, str]) -> int | None:
    for name in (COUNT, "SLURM_STEP_NUM_TASKS", "OMPI_COMM_WORLD_SIZE"):
        if count := _number(environment, name):
            return count
    return len(_pod(environment)) or None


def _pod(environment: Mapping[str, str]) -> list[str]:
    return [host for host in environment.get("TPU_WORKER_HOSTNAMES", "").split(",") if host]


def _number(environment: Mapping[str, str], name: str) -> int | None:
    text = environment.get(name)
    if text is None:
        return None
    if not text.isdecimal() or len(text) > 18:
        raise UserError(f"{name}={text} in the environment is not a whole number of at most 18 digits")
    return int(text)
