"""Requests that were let in, and that the router then answers by itself.

Envoy brings such a request back to the router as to any server, where nothing tells who asks. So
each carries a ticket, which nobody can guess and which is good once: what comes without one was not
let in, whoever sent it.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from buildpool.buildkit.history_requests import HistoryRequest
from buildpool.core.naming import PoolKey

HEADER: Final = "buildpool-ticket"
"""Of the request: what a client writes there is replaced."""
MAX_TICKETS: Final = 32
"""Of one client, that are not used yet; of more, the oldest are good no longer. Each is used at
once, unless its client leaves."""
GOOD_SECONDS: Final = 60.0
"""How long a ticket is good: the message of its request may take half of it."""


@dataclass(slots=True)
class Admitted:
    """A request for the history that was let in."""

    pool: PoolKey
    identity: str
    """The client."""
    request: HistoryRequest | None = None
    """What it asks; None: its message has not been read."""


class Tickets:
    """Those of one router. For one event loop."""

    def __init__(self, *, now: Callable[[], float] = time.monotonic) -> None:
        """``now``: seconds since any time."""
        self._now = now
        self._admitted: dict[str, tuple[float, Admitted]] = {}
        """With the times when they were issued, the oldest first."""
        self._of_clients: dict[tuple[PoolKey, str], list[str]] = {}

    def __len__(self) -> int:
        """How many are kept that were not used yet."""
        return len(self._admitted)

    def issue(self, admitted: Admitted) -> str:
        """The ticket of a request."""
        self._drop_old()
        ticket = secrets.token_urlsafe()
        self._admitted[ticket] = self._now(), admitted
        of_client = self._of_clients.setdefault((admitted.pool, admitted.identity), [])
        of_client.append(ticket)
        if len(of_client) > MAX_TICKETS:
            self.take(of_client[0])
        return ticket

    def take(self, ticket: str) -> Admitted | None:
        """The request of a ticket, once; None where it is none, or is good no longer."""
        self._drop_old()
        return self._drop(ticket)

    def _drop_old(self) -> None:
        while self._admitted:
            oldest, (issued, _) = next(iter(self._admitted.items()))
            if self._now() - issued < GOOD_SECONDS:
                break
            self._drop(oldest)

    def _drop(self, ticket: str) -> Admitted | None:
        _, admitted = self._admitted.pop(ticket, (0.0, None))
        if admitted is not None:
            client = admitted.pool, admitted.identity
            self._of_clients[client].remove(ticket)
            if not self._of_clients[client]:
                del self._of_clients[client]
        return admitted
