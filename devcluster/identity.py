"""Tells whether a process we started is still the one that has its number now.

A process is known by number and start time (and the machine by its boot), never by its name.
"""

from __future__ import annotations

import json
import os
import select
import signal
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")


@dataclass(frozen=True, slots=True)
class Identity:
    """One process, once and for all."""

    pid: int
    started: int
    """In clock ticks since the boot: field 22 of ``/proc/PID/stat``."""
    boot: str

    def to_json(self) -> str:
        """For a file."""
        return json.dumps(asdict(self))


def start_time(stat: str) -> int:
    """Field 22 of a stat line. The name, field 2, may hold spaces and parentheses itself."""
    state_and_on = stat[stat.rindex(")") + 2 :].split()
    return int(state_and_on[19])


def identify(pid: int) -> Identity:
    """The process that has this number now."""
    stat = Path(f"/proc/{pid}/stat").read_text()
    return Identity(pid=pid, started=start_time(stat), boot=BOOT_ID.read_text().strip())


def read_identity(file: Path) -> Identity | None:
    """What was written when it was started; None when nothing useful was."""
    try:
        return Identity(**json.loads(file.read_text()))
    except (FileNotFoundError, ValueError, TypeError):
        return None


def is_alive(identity: Identity) -> bool:
    """Whether that very process still runs (a zombie does not)."""
    try:
        stat = Path(f"/proc/{identity.pid}/stat").read_text()
        state = stat[stat.rindex(")") + 2]
        return state not in "ZX" and identify(identity.pid) == identity
    except (FileNotFoundError, ProcessLookupError):
        return False


def network_of(pid: int | str) -> str:
    """The network in which a process is; empty where it is gone, or is not for us to see."""
    try:
        return str(Path(f"/proc/{pid}/ns/net").readlink())
    except OSError:
        return ""


def in_network(network: str) -> list[Identity]:
    """The processes in a network that is not our own."""
    if network in ("", network_of("self")):
        return []
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal() and network_of(entry.name) == network:
            with suppress(OSError):
                found.append(identify(int(entry.name)))
    return found


def kill(identity: Identity, patience: float = 30.0) -> bool:
    """End that very process by SIGKILL and wait for its end. False when it outlives our patience.

    As it is the first process of its PID namespace, the kernel ends all others there first.
    """
    try:
        handle = os.pidfd_open(identity.pid)
    except ProcessLookupError:
        return True
    try:
        # The handle holds the number, so it cannot change hands between the look and the kill.
        if not is_alive(identity):
            return True
        signal.pidfd_send_signal(handle, signal.SIGKILL)
        return bool(select.select([handle], [], [], patience)[0])
    finally:
        os.close(handle)
