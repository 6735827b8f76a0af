"""What bounds the requests of one pool, so that they cost nobody but their client."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from buildpool.core.naming import PoolKey
from buildpool.gateway.slots.refusals import Exhausted

MAX_REQUESTS: Final = 5_000
"""Requests of one pool at once, those that wait or go on included. The router keeps some 30 KiB of
each, and has to have room for other pools."""
MAX_REQUESTS_OF_CLIENT: Final = 4_000
"""Those of one client, so that the pool's other clients can ask, too."""


class RequestBounds:
    """The requests of one pool that are not over. For one event loop."""

    def __init__(self, pool: PoolKey) -> None:
        self._pool = pool
        self._asking: Counter[str] = Counter()
        """By the identity of their client."""
        self._readers: dict[tuple[str, int], asyncio.Semaphore] = {}
        """By client and bound."""

    @property
    def asking(self) -> int:
        """How many requests are not over."""
        return self._asking.total()

    @contextmanager
    def asked_by(self, identity: str) -> Iterator[None]:
        """For the length of a request. Raises Exhausted where a client, or the pool, has too many.

        Who goes on building has as many as its builds need; these bounds are far above.
        """
        if self._asking[identity] >= MAX_REQUESTS_OF_CLIENT:
            raise self._too_many(f"{MAX_REQUESTS_OF_CLIENT} requests of this client")
        if self.asking >= MAX_REQUESTS:
            raise self._too_many(f"{MAX_REQUESTS} requests")
        self._asking[identity] += 1
        try:
            yield
        finally:
            self._asking[identity] -= 1
            if not self._asking[identity]:
                del self._asking[identity]

    def reader(self, identity: str, at_once: int) -> asyncio.Semaphore:
        """What bounds the messages of one client, of one kind, that are read at once."""
        return self._readers.setdefault((identity, at_once), asyncio.Semaphore(at_once))

    def _too_many(self, found: str) -> Exhausted:
        return Exhausted(
            f"pool {self._pool}: {found} wait or go on already; end some, or wait for their end"
        )
