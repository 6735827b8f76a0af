"""Who listens to what happens to the builds of a pool, and what they have not heard yet.

What comes is what the router hears by itself: nobody asks a daemon once more because somebody
listens. A daemon that says more than is read is not heard by those who read too slowly; what the
others say, they hear. The listeners of all pools share the room for what they have not heard; of
each daemon, each has room for one event in any case. So who reads at once misses nothing.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Final

from buildpool.buildkit import BuildEvent, BuildEventKind, Room
from buildpool.gateway.slots.changes import Changes
from buildpool.gateway.slots.refusals import Exhausted, Refused

MAX_LISTENERS: Final = 256
"""Of one pool."""
MAX_LISTENERS_OF_CLIENT: Final = 32
"""Those of one client, so that the pool's other clients can listen, too."""
MAX_UNHEARD_OF_ALL_BYTES: Final = 64 << 20
"""Of the events of all daemons, for all listeners of all pools, beside one of each daemon."""
MAX_UNHEARD_BYTES: Final = 1 << 20
"""Of the events of one daemon, for one listener."""
MAX_UNHEARD_EVENTS: Final = 1_000
"""As that."""
MAX_EVENT_BYTES: Final = 256 << 10
"""A longer event nobody hears; records take some KiB. Who does not read what it listens to has one
for each of its places in gRPC, where nothing is counted."""
MAX_STARTED: Final = 10_000
"""Builds of which a listener knows that they have started."""


class Listener:
    """What one client has not heard yet."""

    def __init__(self, ref: str, room: Room) -> None:
        """``ref``: the one build that it is about; empty: all. ``room``: what all share."""
        self.teller = ""
        """The uid of the pod that alone tells of the build; empty: each does."""
        self._ref = ref
        self._room = room
        self._end: Refused | None = None
        self._events: deque[tuple[str, BuildEvent]] = deque()
        self._sizes: Counter[str] = Counter()
        self._counts: Counter[str] = Counter()
        self._started: dict[str, None] = {}
        self._changes = Changes()

    def hears(self, uid: str, event: BuildEvent) -> None:
        """The daemon of a pod has said this."""
        if self._end is not None:
            return
        if self._ref and (event.build.ref != self._ref or self.teller not in ("", uid)):
            return
        size = len(event.message)
        if size > MAX_EVENT_BYTES:
            return
        room = min(self._room.left, MAX_UNHEARD_BYTES - self._sizes[uid])
        if self._counts[uid] and (size > room or self._counts[uid] >= MAX_UNHEARD_EVENTS):
            return
        self._sizes[uid] += size
        self._counts[uid] += 1
        self._room.left -= size
        self._events.append((uid, event))
        self._changes.tell()

    def is_news(self, event: BuildEvent) -> bool:
        """Whether a client has not been told so: each daemon repeats which builds run."""
        if event.kind is not BuildEventKind.STARTED:
            self._started.pop(event.build.ref, None)
            return True
        is_known = event.build.ref in self._started
        if len(self._started) < MAX_STARTED:
            self._started[event.build.ref] = None
        return not is_known

    def end(self, why: Refused) -> None:
        """It hears no more, and nothing is kept for it."""
        self._end = self._end or why
        self._room.left += self._sizes.total()
        for each in (self._events, self._sizes, self._counts, self._started):
            each.clear()
        self._changes.tell()

    async def next(self) -> BuildEvent:
        """Waits for what has not been heard yet. Raises that with which it was ended."""
        while True:
            while not self._events and self._end is None:
                await self._changes.next()
            if self._end is not None:
                raise self._end.again()
            uid, event = self._events.popleft()
            self._room.left += len(event.message)
            self._sizes[uid] -= len(event.message)
            self._counts[uid] -= 1
            if not self._counts[uid]:
                del self._counts[uid], self._sizes[uid]
            if self.is_news(event):
                return event


class Listeners:
    """Those of one pool. For one event loop."""

    def __init__(self, room: Room | None = None) -> None:
        """``room``: what the listeners of all pools share."""
        self._room = room or Room(MAX_UNHEARD_OF_ALL_BYTES)
        self._listeners: dict[Listener, str] = {}
        """Each with the identity of its client."""

    @property
    def count(self) -> int:
        """How many listen."""
        return len(self._listeners)

    def tell(self, uid: str, event: BuildEvent) -> None:
        """The daemon of a pod has said this."""
        for listener in self._listeners:
            listener.hears(uid, event)

    def end(self, why: Refused, *, but: Collection[str] = ()) -> None:
        """Those listen no more whose identity is none of these."""
        for listener, identity in self._listeners.items():
            if identity not in but:
                listener.end(why)

    @contextmanager
    def listen(self, identity: str, ref: str) -> Iterator[Listener]:
        """From now on nothing is missed. Raises Exhausted where too many listen."""
        of_client = list(self._listeners.values()).count(identity)
        if of_client >= MAX_LISTENERS_OF_CLIENT or len(self._listeners) >= MAX_LISTENERS:
            raise Exhausted("too many listen to the history of this pool already; end some")
        listener = Listener(ref, self._room)
        self._listeners[listener] = identity
        try:
            yield listener
        finally:
            del self._listeners[listener]
            listener.end(Exhausted("nobody listens"))
