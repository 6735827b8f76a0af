"""What bounds the requests of one pool, and of all, so that they cost other pools nothing.

It is about the router's memory, which keeps some 30 KiB of each request until that is over. What
connections with a slot ask goes on in a room that is its pool's alone: however much waits, here or
in other pools, builds that run can ask what they need. All else waits, even if it has its answer.
The pools share what the router can have of it; each has some for itself, which no other can take.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from typing import Final

from buildpool.buildkit import Room
from buildpool.core.naming import PoolKey
from buildpool.gateway.pools.listeners import MAX_UNHEARD_OF_ALL_BYTES
from buildpool.gateway.pools.messages import MessageRoom, Seat
from buildpool.gateway.pools.unsent import UnsentLists
from buildpool.gateway.slots.refusals import Exhausted

MAX_REQUESTS: Final = 3_000
"""Requests of one pool at once that wait, and as many that go on: 90 MiB each."""
MAX_REQUESTS_OF_ALL: Final = 4_000
"""Requests that wait, of all pools: 120 MiB."""
OWN_REQUESTS: Final = 100
"""Requests that wait which each pool may have beside these: 3 MiB."""
MAX_REQUESTS_OF_CLIENT: Final = 2_500
"""Those of one client, of each kind, so that the pool's other clients can ask, too."""
MAX_LISTS: Final = 4
"""Lists of builds that one client is sent at once. They have a bound of their own: a client that
reads none can still ask what its builds need."""
MAX_LISTS_WAITING: Final = 100
"""Lists for which one client waits meanwhile: each costs some of the router's memory."""


@dataclass(slots=True)
class RouterBounds:
    """What the pools of one router share. For one event loop."""

    waiting: int = 0
    """Requests that wait, beside those that pools have for themselves."""
    messages: MessageRoom = field(default_factory=MessageRoom)
    """The messages that are in memory."""
    unsent: UnsentLists = field(default_factory=UnsentLists)
    """The lists of builds that are in memory."""
    unheard: Room = field(default_factory=lambda: Room(MAX_UNHEARD_OF_ALL_BYTES))
    """What those have not heard yet who listen to builds."""


class _Room:
    """So many requests of one kind. For one event loop."""

    def __init__(self, pool: PoolKey, kind: str, shared: RouterBounds | None = None) -> None:
        """``shared``: with what other pools have of this kind, if they take it from this one."""
        self._pool = pool
        self._kind = kind
        self._shared = shared
        self.taken: Counter[str] = Counter()
        """By the identity of their client."""

    def enter(self, identity: str) -> None:
        """One more. Raises Exhausted where a client, or the pool, has too many."""
        if self.taken[identity] >= MAX_REQUESTS_OF_CLIENT:
            raise self._too_many(f"{MAX_REQUESTS_OF_CLIENT} requests of this client")
        if self.taken.total() >= MAX_REQUESTS:
            raise self._too_many(f"{MAX_REQUESTS} requests")
        if self._shared is not None and self.taken.total() >= OWN_REQUESTS:
            if self._shared.waiting >= MAX_REQUESTS_OF_ALL:
                raise self._too_many(f"{MAX_REQUESTS_OF_ALL} requests of all pools")
            self._shared.waiting += 1
        self.taken[identity] += 1

    def leave(self, identity: str) -> None:
        """One less."""
        if self._shared is not None and self.taken.total() > OWN_REQUESTS:
            self._shared.waiting -= 1
        self.taken[identity] -= 1
        if not self.taken[identity]:
            del self.taken[identity]

    def _too_many(self, found: str) -> Exhausted:
        return Exhausted(
            f"pool {self._pool}: {found} {self._kind} already; end some, or wait for their end"
        )


class _Request:
    """One request, and the room in which it is."""

    def __init__(self, identity: str, waiting: _Room, going_on: _Room, *, has_slot: bool) -> None:
        self._identity = identity
        self._going_on = going_on
        self._room = going_on if has_slot else waiting
        self._room.enter(identity)

    def has_slot(self) -> None:
        """Its connection has a slot, so that it waits no longer."""
        # It has waited, and is not refused now: if too many go on, its place is where it is.
        if self._room is not self._going_on:
            with suppress(Exhausted):
                self._going_on.enter(self._identity)
                self._room.leave(self._identity)
                self._room = self._going_on

    def is_over(self) -> None:
        """It costs nothing any more."""
        self._room.leave(self._identity)


class RequestBounds:
    """The requests of one pool that are not over. For one event loop."""

    def __init__(self, pool: PoolKey, of_all: RouterBounds | None = None) -> None:
        """``of_all``: what it shares with other pools."""
        of_all = of_all or RouterBounds()
        self._pool = pool
        self._messages = of_all.messages
        self._waiting = _Room(pool, "wait", of_all)
        self._going_on = _Room(pool, "go on")
        self._readers: dict[tuple[str, str], asyncio.Semaphore] = {}
        """By client and kind."""
        self._lists: Counter[str] = Counter()
        """Those that are sent, and that wait, by client."""

    @property
    def waiting(self) -> int:
        """How many requests wait, or have no slot."""
        return self._waiting.taken.total()

    @property
    def going_on(self) -> int:
        """How many requests belong to a slot."""
        return self._going_on.taken.total()

    @contextmanager
    def asked_by(self, identity: str, *, has_slot: bool) -> Iterator[_Request]:
        """For the length of a request. Raises Exhausted where a client, or the pool, has too many.

        ``has_slot``: whether its connection has a slot, so that it belongs to what goes on.
        """
        request = _Request(identity, self._waiting, self._going_on, has_slot=has_slot)
        try:
            yield request
        finally:
            request.is_over()

    def message(self) -> AbstractContextManager[Seat]:
        """One message of a client that may be long, until it is out of memory."""
        return self._messages.message(self._pool)

    def reader(self, identity: str, kind: str, at_once: int) -> asyncio.Semaphore:
        """What bounds the messages of one client, of one kind, that are read at once."""
        return self._readers.setdefault((identity, kind), asyncio.Semaphore(at_once))

    @asynccontextmanager
    async def a_list(self, identity: str) -> AsyncIterator[None]:
        """For as long as a client is sent a list of builds. Raises Exhausted where many wait."""
        if self._lists[identity] >= MAX_LISTS + MAX_LISTS_WAITING:
            raise Exhausted(
                f"pool {self._pool}: {MAX_LISTS + MAX_LISTS_WAITING} lists of builds for this "
                "client already; read them, or end some"
            )
        self._lists[identity] += 1
        try:
            # It is a request that waits, like others, for all that its pool and all pools may have.
            with self.asked_by(identity, has_slot=False):
                async with self.reader(identity, "lists", MAX_LISTS):
                    yield
        finally:
            self._lists[identity] -= 1
            if not self._lists[identity]:
                del self._lists[identity]
