"""Asks the daemons of one pool, all together: those that are watched, and those that drain.

None costs the others more than its own answer: each has seconds for it, and one that has not
answered is waited for no more for a while.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Final, Generic, TypeVar

from buildpool.buildkit import DaemonError, DaemonRefusedError
from buildpool.buildkit.watcher import Connect, Target, WatchedDaemon
from buildpool.core.naming import PoolKey

T = TypeVar("T")
ASKED_AT_ONCE: Final = 16
"""Daemons of a pool that are asked one question at a time."""
SILENT_SECONDS: Final = 10.0
"""For which a daemon that has not answered is asked nothing that others can answer, too: else every
question would wait for it."""
log: Final = logging.getLogger(__name__)


@dataclass(slots=True)
class Answers(Generic[T]):
    """What the daemons of a pool said to one question."""

    found: dict[str, T] = field(default_factory=dict)
    """By the uids of their pods."""
    refusal: DaemonRefusedError | None = None
    """What one said that refused the question."""


class Fleet:
    """The daemons of one pool. For one event loop."""

    def __init__(
        self,
        pool: PoolKey,
        watched: Callable[[], Mapping[str, WatchedDaemon | None]],
        connect: Connect,
    ) -> None:
        self._pool = pool
        self._watched = watched
        self._connect = connect
        self.leaving: Mapping[str, Target] = {}
        """The builders that drain, by the uids of their pods. They wait until nobody is connected,
        so no connection to them is kept."""
        self._silent: dict[str, float] = {}
        """Until when those that have not answered are left out."""

    @property
    def is_empty(self) -> bool:
        """Whether the pool has no builder."""
        return not self.leaving and not self._watched()

    def has(self, uid: str) -> bool:
        """Whether the builder with this pod is there."""
        return uid in self.leaving or uid in self._watched()

    async def ask(
        self,
        question: Callable[[WatchedDaemon], Awaitable[T]],
        *,
        enough: Callable[[T], bool] = lambda _: False,
        only: Collection[str] | None = None,
    ) -> Answers[T]:
        """What they answer, until there is ``enough``; ``only``: what these do.

        Those that do not answer within seconds are missing.
        """
        at_once, now = asyncio.Semaphore(ASKED_AT_ONCE), asyncio.get_running_loop().time
        answers: Answers[T] = Answers()
        self._silent = {uid: until for uid, until in self._silent.items() if until > now()}

        async def ask(uid: str, work: Callable[[], Awaitable[T]]) -> bool:
            async with at_once:
                try:
                    answers.found[uid] = answer = await work()
                except DaemonRefusedError as refusal:
                    answers.refusal = refusal
                except DaemonError as error:
                    self._silent[uid] = now() + SILENT_SECONDS
                    log.debug("%s, pod %s: no answer: %s", self._pool, uid, error)
                except Exception:  # whatever it is, the others can answer
                    log.exception("%s, pod %s: a defect in asking it", self._pool, uid)
                else:
                    return enough(answer)
            return False

        works = self._works(question)
        asked = works.keys() - self._silent.keys() or works.keys() if only is None else set(only)
        tasks = [asyncio.create_task(ask(uid, works[uid])) for uid in works if uid in asked]
        try:
            for done in asyncio.as_completed(tasks):
                if await done:
                    break
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        return answers

    def _works(
        self, question: Callable[[WatchedDaemon], Awaitable[T]]
    ) -> dict[str, Callable[[], Awaitable[T]]]:
        """How each daemon is asked, by the uid of its pod."""
        works: dict[str, Callable[[], Awaitable[T]]] = {
            uid: partial(question, daemon)
            for uid, daemon in self._watched().items()
            if daemon is not None
        }
        for uid, target in self.leaving.items():
            works.setdefault(uid, partial(self._call_on, target, question))
        return works

    async def _call_on(
        self, target: Target, question: Callable[[WatchedDaemon], Awaitable[T]]
    ) -> T:
        """The answer of a daemon to which there is no connection; none is left."""
        daemon = self._connect(target.address, target.access)
        try:
            return await question(daemon)
        finally:
            await daemon.close()
