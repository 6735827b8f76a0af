"""Asks the daemons of one pool, all together: those that are watched, and those that drain.

None costs the others more than its own answer: each has seconds for it, and one that was late is
waited for no more for a while, unless it may have what the others have not.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Final, Protocol, TypeVar

from buildpool.buildkit import (
    BuildEvent,
    DaemonError,
    DaemonLateError,
    DaemonRefusedError,
    Room,
)
from buildpool.buildkit.watcher import Connect, Target, WatchedDaemon
from buildpool.core.naming import PoolKey
from buildpool.gateway.pools.leaving import LeavingDaemon

T = TypeVar("T")
ASKED_AT_ONCE: Final = 16
"""Daemons of a pool that are asked one question at a time."""
SILENT_SECONDS: Final = 10.0
"""For which a daemon that was late is asked nothing that others can answer, too: else every
question would wait for it."""
log: Final = logging.getLogger(__name__)


class Keeper(Protocol):
    """A daemon that keeps records; both raise DaemonError."""

    async def records(self, request: bytes, room: Room, *, ref: str = "") -> list[BuildEvent]:
        """What its history answers to a question that has an end; within seconds."""

    async def has_content(self, digest: str) -> bool:
        """Whether it has some content that builds have made; within seconds."""


@dataclass(slots=True)
class Asked:
    """What became of one question."""

    answered: set[str] = field(default_factory=set)
    """The uids of the pods whose daemons have answered."""
    refusal: DaemonRefusedError | None = None
    """What one said that refused it."""


async def _at_once() -> None:
    """All daemons have been heard."""


class Fleet:
    """The daemons of one pool. For one event loop."""

    def __init__(
        self,
        pool: PoolKey,
        watched: Callable[[], Mapping[str, WatchedDaemon | None]],
        connect: Connect,
        *,
        heard: Callable[[], Awaitable[None]] = _at_once,
    ) -> None:
        """``heard`` waits until all have answered the router that has just started, or are late."""
        self._pool = pool
        self._watched = watched
        self._connect = connect
        self._heard = heard
        self._leaving: dict[str, LeavingDaemon] = {}
        self._silent: dict[str, float] = {}
        """Until when those that were late are left out."""

    @property
    def is_empty(self) -> bool:
        """Whether the pool has no builder."""
        return not self._leaving and not self._watched()

    def has(self, uid: str) -> bool:
        """Whether the builder with this pod is there."""
        return uid in self._leaving or uid in self._watched()

    def leave(self, targets: Mapping[str, Target]) -> None:
        """These are the builders that drain now, by the uids of their pods."""
        known = self._leaving
        self._leaving = {
            uid: known[uid]
            if uid in known and known[uid].target == target
            else LeavingDaemon(target, self._connect)
            for uid, target in targets.items()
        }

    def changes(self, uid: str) -> None:
        """Somebody is about to change a record of this builder."""
        if uid in self._leaving:
            self._leaving[uid].forget()

    async def ask(
        self,
        question: Callable[[Keeper], Awaitable[T]],
        take: Callable[[str, T], Awaitable[bool]],
        *,
        only: Collection[str] | None = None,
        without: Collection[str] = (),
        is_search: bool = False,
    ) -> Asked:
        """Asks all, or ``only`` these. ``take`` gets each answer, and says whether it is enough.

        ``is_search``: whether one alone may have what is asked for. Then also those are asked that
        were late, once the others have not enough.
        """
        asked = Asked()
        put = partial(self._put, question, take, asked)
        if only is not None:
            await put(set(only))
            return asked
        if not is_search:
            await self._heard()
        now = asyncio.get_running_loop().time()
        self._silent = {uid: until for uid, until in self._silent.items() if until > now}
        all_of_them = self._keepers().keys() - set(without)
        first = all_of_them - self._silent.keys() or all_of_them
        if not await put(first) and is_search:
            await self._heard()
            await put(self._keepers().keys() - first - set(without))
        return asked

    async def _put(
        self,
        question: Callable[[Keeper], Awaitable[T]],
        take: Callable[[str, T], Awaitable[bool]],
        asked: Asked,
        uids: Collection[str],
    ) -> bool:
        """A question to these, until there is enough; whether there is."""
        at_once = asyncio.Semaphore(ASKED_AT_ONCE)

        async def ask(uid: str, keeper: Keeper) -> bool:
            async with at_once:
                try:
                    answer = await question(keeper)
                except DaemonRefusedError as refusal:
                    asked.refusal = refusal
                except DaemonError as error:
                    if isinstance(error, DaemonLateError):
                        self._silent[uid] = asyncio.get_running_loop().time() + SILENT_SECONDS
                    log.debug("%s, pod %s: no answer: %s", self._pool, uid, error)
                except Exception:  # whatever it is, the others can answer
                    log.exception("%s, pod %s: a defect in asking it", self._pool, uid)
                else:
                    self._silent.pop(uid, None)
                    asked.answered.add(uid)
                    return await take(uid, answer)
            return False

        keepers = self._keepers().items()
        tasks = [asyncio.create_task(ask(uid, keeper)) for uid, keeper in keepers if uid in uids]
        try:
            for done in asyncio.as_completed(tasks):
                if await done:
                    return True
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        return False

    def _keepers(self) -> dict[str, Keeper]:
        """Those that can be asked, by the uids of their pods."""
        watched = {uid: each for uid, each in self._watched().items() if each is not None}
        return {**self._leaving, **watched}
