"""TCP ports for servers that tests start."""

from __future__ import annotations

import random
import socket
from pathlib import Path

FIRST = 10_000
_given: set[int] = set()
"""To servers of this process, which may not listen yet."""


def free_port() -> int:
    """A TCP port that nobody has, and that the kernel gives to no connection in the meantime."""
    given = Path("/proc/sys/net/ipv4/ip_local_port_range").read_text()
    for port in random.sample(range(FIRST, int(given.split()[0])), 1000):
        if port in _given:
            continue
        with socket.socket() as sock:
            try:
                sock.bind(("", port))
            except OSError:
                continue
        _given.add(port)
        return port
    raise AssertionError("no port is free")
