"""Requests that were let in, and that the router then answers by itself.

Envoy brings such a request back to the router as to any server, where nothing tells who asks. So
each carries a ticket, which nobody can guess and which is good once: what comes without one was not
let in, whoever sent it.
"""

from __future__ import annotations

import secrets
from collections import OrderedDict
from dataclasses import dataclass
from typing import Final

from buildpool.buildkit.history_requests import HistoryRequest
from buildpool.core.naming import PoolKey

HEADER: Final = "buildpool-ticket"
"""Of the request: what a client writes there is replaced."""
MAX_TICKETS: Final = 1_000
"""That are not used yet; of more, the oldest are good no longer. Each is used at once."""


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
        self._admitted: OrderedDict[str, Admitted] = OrderedDict()

    def issue(self, admitted: Admitted) -> str:
        """The ticket of a request."""
        ticket = secrets.token_urlsafe()
        self._admitted[ticket] = admitted
        if len(self._admitted) > MAX_TICKETS:
            self._admitted.popitem(last=False)
        return ticket

    def take(self, ticket: str) -> Admitted | None:
        """The request of a ticket, once; None where it is none."""
        return self._admitted.pop(ticket, None)
