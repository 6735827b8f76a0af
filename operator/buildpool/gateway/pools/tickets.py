"""Requests that were let in, and that the router then answers by itself.

Envoy brings such a request back to the router as to any server, where nothing tells who asks. So
each carries a ticket, which nobody can guess and which is good once: what comes without one was not
let in, whoever sent it.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from typing import Final

from buildpool.buildkit.history_requests import HistoryRequest
from buildpool.core.naming import PoolKey

HEADER: Final = "buildpool-ticket"
"""Of the request: what a client writes there is replaced."""
MAX_TICKETS: Final = 128
"""Of one client, that are not used yet; of more, the oldest are good no longer. Each is used at
once, unless its client leaves."""


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

    def __init__(self) -> None:
        self._admitted: dict[str, Admitted] = {}
        self._of_clients: dict[tuple[PoolKey, str], list[str]] = {}

    def issue(self, admitted: Admitted) -> str:
        """The ticket of a request."""
        ticket = secrets.token_urlsafe()
        self._admitted[ticket] = admitted
        of_client = self._of_clients.setdefault((admitted.pool, admitted.identity), [])
        of_client.append(ticket)
        if len(of_client) > MAX_TICKETS:
            self.take(of_client[0])
        return ticket

    def take(self, ticket: str) -> Admitted | None:
        """The request of a ticket, once; None where it is none."""
        admitted = self._admitted.pop(ticket, None)
        if admitted is not None:
            client = admitted.pool, admitted.identity
            self._of_clients[client].remove(ticket)
            if not self._of_clients[client]:
                del self._of_clients[client]
        return admitted
