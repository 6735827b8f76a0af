"""What the gateway says in the pool's status: who waits, who shares, why it serves none. Pure.

Each of the gateway's pods writes an entry of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final

from buildpool.core.api.status import GatewayStatus
from buildpool.core.routing.values import Backlog

BLOCKED_AFTER: Final = timedelta(minutes=2)
"""How long a queue stands still before the user is told."""


def backlog_of(entries: Sequence[GatewayStatus]) -> Backlog:
    """Who waits, and who shares a slot, according to all pods of the gateway."""
    since = [entry.since for entry in entries if entry.waiting and entry.since is not None]
    return Backlog(
        waiting=sum(entry.waiting for entry in entries),
        since=min(since, default=None),
        shared=sum(entry.shared for entry in entries),
    )


def is_blocked(backlog: Backlog, now: datetime) -> bool:
    """Whether the queue stands still for so long that the user should know."""
    return backlog.since is not None and now - backlog.since >= BLOCKED_AFTER


def refusal(entries: Sequence[GatewayStatus]) -> str | None:
    """Why the gateway does not serve the pool; None where it does."""
    return next((entry.refused for entry in entries if entry.refused), None)
