"""A daemon that drains: it waits until nobody is connected to it any more, and keeps its records.

So each question is asked on a connection that ends with the answer, and not again for a while:
clients that list builds over and over would otherwise keep it from its end.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import Final, Generic, TypeVar

from buildpool.buildkit import BuildEvent, Room
from buildpool.buildkit.watcher import Connect, Target, WatchedDaemon

T = TypeVar("T")
KEPT_SECONDS: Final = 30.0
"""For which an answer counts."""
MAX_KEPT_BYTES: Final = 2 << 20
"""Of the answers of one daemon."""
ANSWER_BYTES: Final = 500
"""What each of them takes beside its records."""


class LeavingDaemon:
    """One of them, for as long as it is there. For one event loop."""

    def __init__(self, target: Target, connect: Connect) -> None:
        self.target = target
        self._connect = connect
        self._records: _Answers[tuple[bytes, str], list[BuildEvent]] = _Answers()
        self._content: _Answers[str, bool] = _Answers()

    async def records(self, request: bytes, room: Room, *, ref: str = "") -> list[BuildEvent]:
        """What its history answers, or has answered. Raises DaemonError."""
        key = request, ref
        if (known := self._records.recall(key)) is not None:
            room.left -= _size(known)
            return known
        found = await self._ask(lambda daemon: daemon.records(request, room, ref=ref))
        self._records.keep(key, found, len(request) + len(ref) + _size(found))
        return found

    async def has_content(self, digest: str) -> bool:
        """Whether it has some content that builds have made, or had it. Raises DaemonError."""
        if (known := self._content.recall(digest)) is not None:
            return known
        found = await self._ask(lambda daemon: daemon.has_content(digest))
        self._content.keep(digest, found, len(digest))
        return found

    def forget(self) -> None:
        """Something about its records is about to change: it is asked again."""
        self._records.clear()

    async def _ask(self, question: Callable[[WatchedDaemon], Awaitable[T]]) -> T:
        daemon = self._connect(self.target.address, self.target.access)
        try:
            return await question(daemon)
        finally:
            await daemon.close()


K = TypeVar("K")


class _Answers(Generic[K, T]):
    """What was answered a while ago, by question."""

    def __init__(self) -> None:
        self._kept: OrderedDict[K, tuple[float, int, T]] = OrderedDict()
        """Until when each counts, and its size; the oldest come first."""
        self._size = 0

    def recall(self, question: K) -> T | None:
        now = asyncio.get_running_loop().time()
        until, _, answer = self._kept.get(question, (0.0, 0, None))
        return answer if now < until else None

    def keep(self, question: K, answer: T, size: int) -> None:
        """``size``: that of question and answer, in bytes."""
        now, size = asyncio.get_running_loop().time(), size + ANSWER_BYTES
        self._drop(question)
        self._kept[question] = now + KEPT_SECONDS, size, answer
        self._size += size
        while self._size > MAX_KEPT_BYTES or self._is_over(now):
            self._drop(next(iter(self._kept)))

    def _is_over(self, now: float) -> bool:
        """Whether the oldest counts no longer."""
        until, _, _ = next(iter(self._kept.values()), (now + 1, 0, None))
        return until <= now

    def clear(self) -> None:
        self._kept.clear()
        self._size = 0

    def _drop(self, question: K) -> None:
        _, size, _ = self._kept.pop(question, (0.0, 0, None))
        self._size -= size


def _size(events: list[BuildEvent]) -> int:
    return sum(len(event.message) for event in events)
