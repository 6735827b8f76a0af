"""What the gateway tells in the pool's status: builds that wait, and why it serves none. Pure.

Each of the gateway's pods writes an entry of its own. One whose pod is gone speaks for nobody: its
connections are gone, too.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from buildpool.core.api import Pool
from buildpool.core.observed.observation import Observation

BLOCKED_AFTER: Final = timedelta(minutes=2)
"""How long a queue stands still before the user is told."""


@dataclass(frozen=True, slots=True)
class Backlog:
    """The builds of one pool that wait."""

    waiting: int = 0
    since: datetime | None = None
    """Since when they wait and nobody has got a slot; None where none waits."""

    def is_blocked(self, now: datetime) -> bool:
        """Whether the queue stands still for so long that the user should know."""
        return self.since is not None and now - self.since >= BLOCKED_AFTER


def refusal(pool: Pool, observation: Observation) -> str | None:
    """Why the gateway does not serve the pool; None where it does."""
    entries = (entry for entry in pool.status.gateways if entry.name in observation.gateways)
    return next((entry.refused for entry in entries if entry.refused), None)


def forsaken(pool: Pool, observation: Observation) -> bool:
    """Whether an entry stands there whose pod is gone. Nobody else takes it away."""
    return any(entry.name not in observation.gateways for entry in pool.status.gateways)


def kept_entries(pool: Pool, observation: Observation) -> list[dict[str, Any]]:
    """The entries of the pods that there are."""
    there = (entry for entry in pool.status.gateways if entry.name in observation.gateways)
    return [entry.to_dict() for entry in there]


def backlog_of(pool: Pool, observation: Observation) -> Backlog:
    """Who waits now."""
    entries = [entry for entry in pool.status.gateways if entry.name in observation.gateways]
    since = [entry.since for entry in entries if entry.waiting and entry.since is not None]
    return Backlog(sum(entry.waiting for entry in entries), min(since, default=None))
