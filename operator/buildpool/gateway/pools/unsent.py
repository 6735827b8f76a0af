"""The lists of builds that clients have not taken yet, those of all pools together.

They have so much of the router's memory and no more. Who reads what it asked for has it within
moments; where there is no room for one more, the oldest is given up of the pool that has the most:
its client does not read.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Final

from buildpool.buildkit import BuildEvent
from buildpool.core.naming import PoolKey
from buildpool.gateway.slots.refusals import Exhausted

MAX_UNSENT_BYTES: Final = 64 << 20
"""Of all lists. The longest has an eighth of it."""


class UnsentList:
    """What is left to be sent of one list."""

    def __init__(self, pool: PoolKey) -> None:
        self.pool = pool
        self.size = 0
        """Its bytes."""
        self._events: deque[BuildEvent] = deque()
        self._is_given_up = False

    def hold(self, events: Iterable[BuildEvent]) -> None:
        """These are to be sent."""
        self._events.extend(events)
        self.size = sum(len(event.message) for event in self._events)

    def take(self) -> BuildEvent | None:
        """The next one, which is sent now; None at the end. Raises Exhausted: it was given up."""
        if self._is_given_up:
            raise Exhausted("this answer was read too slowly, and others need the room; ask again")
        if not self._events:
            return None
        event = self._events.popleft()
        self.size -= len(event.message)
        return event

    def give_up(self) -> None:
        """What is left is not sent."""
        self._is_given_up = True
        self._events.clear()
        self.size = 0


class UnsentLists:
    """Those of all pools. For one event loop."""

    def __init__(self) -> None:
        self._lists: dict[UnsentList, None] = {}
        """The oldest come first."""

    @contextmanager
    def holding(self, pool: PoolKey, events: Iterable[BuildEvent]) -> Iterator[UnsentList]:
        """A list of a pool, until it was sent."""
        new = UnsentList(pool)
        new.hold(events)
        self._lists[new] = None
        self._make_room()
        try:
            yield new
        finally:
            new.give_up()
            del self._lists[new]

    def __len__(self) -> int:
        """How many are being sent."""
        return len(self._lists)

    @property
    def size(self) -> int:
        """Their bytes."""
        return sum(each.size for each in self._lists)

    def _make_room(self) -> None:
        while self.size > MAX_UNSENT_BYTES:
            sizes: Counter[PoolKey] = Counter()
            for each in self._lists:
                sizes[each.pool] += each.size
            largest = max(sizes, key=lambda pool: sizes[pool])
            next(e for e in self._lists if e.pool == largest and e.size).give_up()
