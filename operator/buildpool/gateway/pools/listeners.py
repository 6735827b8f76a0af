"""Who listens to what happens to the builds of a pool, and what they have not heard yet.

What comes is what the router hears by itself: nobody asks a daemon once more because somebody
listens. A daemon that says more than is read is not heard by those who read too slowly; what the
others say, they hear.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from buildpool.buildkit import BuildEvent, BuildEventKind
from buildpool.gateway.slots.changes import Changes
from buildpool.gateway.slots.refusals import Exhausted

MAX_LISTENERS: Final = 64
"""Of one pool."""
MAX_LISTENERS_OF_CLIENT: Final = 32
"""Those of one client, so that the pool's other clients can listen, too."""
MAX_UNHEARD_BYTES: Final = 1 << 20
"""Of the events of one daemon, for one listener."""
MAX_UNHEARD_EVENTS: Final = 1_000
"""As that."""
MAX_STARTED: Final = 10_000
"""Builds of which a listener knows that they have started."""


class Listener:
    """What one client has not heard yet."""

    def __init__(self, ref: str) -> None:
        """``ref``: the one build that it is about; empty: all."""
        self.teller = ""
        """The uid of the pod that alone tells of the build; empty: each does."""
        self._ref = ref
        self._events: deque[tuple[str, BuildEvent]] = deque()
        self._sizes: Counter[str] = Counter()
        self._counts: Counter[str] = Counter()
        self._started: dict[str, None] = {}
        self._changes = Changes()

    def hears(self, uid: str, event: BuildEvent) -> None:
        """The daemon of a pod has said this."""
        if self._ref and (event.build.ref != self._ref or self.teller not in ("", uid)):
            return
        size = len(event.message)
        if self._counts[uid] and (
            self._sizes[uid] + size > MAX_UNHEARD_BYTES or self._counts[uid] >= MAX_UNHEARD_EVENTS
        ):
            return
        self._sizes[uid] += size
        self._counts[uid] += 1
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

    async def next(self) -> BuildEvent:
        """Waits for what has not been heard yet."""
        while True:
            while not self._events:
                await self._changes.next()
            uid, event = self._events.popleft()
            self._sizes[uid] -= len(event.message)
            self._counts[uid] -= 1
            if not self._counts[uid]:
                del self._counts[uid], self._sizes[uid]
            if self.is_news(event):
                return event


class Listeners:
    """Those of one pool. For one event loop."""

    def __init__(self) -> None:
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

    @contextmanager
    def listen(self, identity: str, ref: str) -> Iterator[Listener]:
        """From now on nothing is missed. Raises Exhausted where too many listen."""
        of_client = list(self._listeners.values()).count(identity)
        if of_client >= MAX_LISTENERS_OF_CLIENT or len(self._listeners) >= MAX_LISTENERS:
            raise Exhausted("too many listen to the history of this pool already; end some")
        listener = Listener(ref)
        self._listeners[listener] = identity
        try:
            yield listener
        finally:
            del self._listeners[listener]
