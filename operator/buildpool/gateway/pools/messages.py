"""What bounds the messages that the router has in its memory, those of all pools together.

A solve may have 16 MiB, and the router makes copies of it until it has gone on. How long a message
is, nobody knows before it has come, so that room for the longest is kept for each that is read. Who
finds none waits, and is never refused. No pool can take all the room, and each may always read one
message: somebody who sends slowly, or not at all, holds up no other pool.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from buildpool.buildkit.solve_requests import MAX_MESSAGE_BYTES
from buildpool.core.naming import PoolKey

ROOM_BYTES: Final = 3 * MAX_MESSAGE_BYTES
"""Bytes of messages of all pools at once. With all copies, each takes six to eight times as much
for moments, and three times as much while its build waits for its builder."""
POOL_BYTES: Final = 2 * MAX_MESSAGE_BYTES
"""Those of one pool, so that others find room."""
SLOW_SECONDS: Final = 2.0
"""Time after which less room is kept for a message that has not come,"""
SLOW_BYTES: Final = MAX_MESSAGE_BYTES // 4
"""and how much: if it is longer than that, it waits once it has come."""


class Seat:
    """The room of one message."""

    def __init__(self, room: MessageRoom, pool: PoolKey) -> None:
        self._room = room
        self.pool = pool
        self.size = 0
        """Bytes that are kept for it."""
        self.has_come = False
        """Whether it is in memory, with room for its copies."""
        self._slow: asyncio.TimerHandle | None = None

    async def read(self) -> None:
        """Waits until there is room to read it."""
        await self._room.enter(self, MAX_MESSAGE_BYTES, has_come=False)
        loop = asyncio.get_running_loop()
        self._slow = loop.call_later(SLOW_SECONDS, self._shrink, SLOW_BYTES)

    async def come(self, size: int) -> None:
        """It has come, and is this long. Waits until there is room to make something of it."""
        self._shrink(size)
        await self._room.enter(self, size, has_come=True)

    def leave(self) -> None:
        """It is not in memory any more."""
        self._room.seats.pop(self, None)
        self._shrink(0)

    def _shrink(self, size: int) -> None:
        if self._slow is not None:
            self._slow.cancel()
            self._slow = None
        self.size = size
        self._room.give()


@dataclass(slots=True, eq=False)
class _Waiting:
    """A message that waits for room."""

    seat: Seat
    size: int
    has_come: bool
    turn: asyncio.Future[None]


class MessageRoom:
    """The messages of all pools. For one event loop."""

    def __init__(self) -> None:
        self.seats: dict[Seat, None] = {}
        """Those that are in memory, or for which there is room."""
        self._lines: dict[tuple[PoolKey, bool], deque[_Waiting]] = {}
        """Those that wait, by pool and whether they have come; the pool that has got something last
        is the last."""

    @contextmanager
    def message(self, pool: PoolKey) -> Iterator[Seat]:
        """One message of a pool, which is out of memory at the end of this at the latest."""
        seat = Seat(self, pool)
        try:
            yield seat
        finally:
            seat.leave()

    async def enter(self, seat: Seat, size: int, *, has_come: bool) -> None:
        """Waits until there is so much room for a message."""
        turn = asyncio.get_running_loop().create_future()
        key, waiting = (seat.pool, has_come), _Waiting(seat, size, has_come, turn)
        self._lines.setdefault(key, deque()).append(waiting)
        self.give()
        try:
            await turn
        finally:
            if waiting in self._lines.get(key, ()):  # it has given up
                self._lines[key].remove(waiting)

    def give(self) -> None:
        """Lets those in that find room now, one pool after the other."""
        for key in tuple(self._lines):
            line = self._lines[key]
            if line and self._has_room(line[0]):
                self._lines[key] = self._lines.pop(key)
            while line and self._has_room(line[0]):
                waiting = line.popleft()
                waiting.seat.size, waiting.seat.has_come = waiting.size, waiting.has_come
                self.seats[waiting.seat] = None
                if not waiting.turn.done():
                    waiting.turn.set_result(None)
            if not line:
                del self._lines[key]

    def _has_room(self, waiting: _Waiting) -> bool:
        # One that has come competes with those alone that have come, too.
        others = [each for each in self.seats if each.has_come or not waiting.has_come]
        others = [each for each in others if each is not waiting.seat]
        of_pool = [each.size for each in others if each.pool == waiting.seat.pool]
        if not (others if waiting.has_come else of_pool):
            return True
        of_all = sum(each.size for each in others)
        return of_all + waiting.size <= ROOM_BYTES and sum(of_pool) + waiting.size <= POOL_BYTES
