"""Talks to the supervisor of a running box, from outside of it."""

from __future__ import annotations

import json
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from devcluster.errors import DevclusterError
from devcluster.identity import Identity, is_alive, read_identity
from devcluster.layout import CONTROL_SOCKET, Layout


@dataclass(frozen=True, slots=True)
class Report:
    """One component, as the supervisor sees it."""

    name: str
    kind: str
    state: str
    seconds: float
    """In this state."""
    pid: int
    """Inside the box."""
    restarts: int
    memory: int
    patience: float

    @property
    def settled(self) -> bool:
        """Nothing is left to wait for."""
        return self.state in ("ready", "done", "stopped")


def running_box(layout: Layout) -> Identity | None:
    """The first process of the cluster's box, if it lives."""
    identity = read_identity(layout.identity)
    return identity if identity and is_alive(identity) else None


def require_box(layout: Layout) -> Identity:
    """The first process of the cluster's box; an error when there is none."""
    identity = running_box(layout)
    if not identity:
        raise DevclusterError(
            f"the cluster {layout.name} is not up", remedy="Start it with `devcluster up`."
        )
    return identity


def inside(identity: Identity, path: Path) -> Path:
    """How a path of the box is reached from outside."""
    return Path(f"/proc/{identity.pid}/root") / path.relative_to("/")


def ask(identity: Identity, request: dict[str, Any]) -> tuple[Report, ...]:
    """Send one request; the answer is the state of what it was about."""
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(10)
        client.connect(str(inside(identity, CONTROL_SOCKET)))
        client.sendall(json.dumps(request).encode() + b"\n")
        with client.makefile() as answer:
            reply = json.loads(answer.readline())
    if "error" in reply:
        raise DevclusterError(f"the supervisor refuses: {reply['error']}")
    return tuple(Report(**component) for component in reply["components"])
