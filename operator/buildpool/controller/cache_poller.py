"""Asks the registries of shared caches how they are, and wakes a pool when the answer changes.

Outside of the passes: an answer can take seconds, and a pass must not wait for a registry. What a
pass gets is the last answer there was. Each registry has a task of its own, and those in trouble
wait for each other only: nobody else's registry is asked later because of them.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final, Protocol

from buildpool.controller.wakeups import Wakeups
from buildpool.core import pauses
from buildpool.core.api import Reason
from buildpool.core.naming import PoolKey
from buildpool.core.observed.cache import CacheReport, CacheTarget
from buildpool.core.words import Finding

AT_ONCE: Final = 32
"""Registries asked at a time, but for those in trouble."""
TROUBLED_AT_ONCE: Final = 16
"""Registries in trouble asked at a time. Most of them take the whole time of a look."""
MANAGED_SECONDS: Final = 10.0
"""Seconds between two looks at a managed registry: its disk can fill within a build."""
EXTERNAL_SECONDS: Final = 60.0
"""Seconds between two looks at somebody else's registry."""
TROUBLED_SECONDS: Final = 5.0
"""Seconds until the next look where something was wrong; doubled while it is, up to
``EXTERNAL_SECONDS``.
"""
WRITTEN_SECONDS: Final = 600.0
"""Seconds between two attempts to write to somebody else's registry. The keeper tells of ours."""
log: Final = logging.getLogger(__name__)


class Inspect(Protocol):
    """Asks a registry; ``preflight.inspect``."""

    def __call__(self, target: CacheTarget, *, write: bool) -> Awaitable[CacheReport]:
        """What was found, with or without an attempt to write."""


@dataclass(slots=True)
class _Watched:
    target: CacheTarget
    task: asyncio.Task[None]
    report: CacheReport | None = None


class CachePoller:
    """Looks at the caches of pools. For one event loop."""

    def __init__(
        self, inspect: Inspect, wakeups: Wakeups, *, chance: Callable[[], float] = random.random
    ) -> None:
        """``chance`` gives numbers from 0 up to 1, by which pauses are spread."""
        self._inspect = inspect
        self._wakeups = wakeups
        self._chance = chance
        self._watched: dict[PoolKey, _Watched] = {}
        self._slots = asyncio.Semaphore(AT_ONCE)
        self._troubled_slots = asyncio.Semaphore(TROUBLED_AT_ONCE)
        self._tasks: set[asyncio.Task[None]] = set()
        self._is_over = False

    def watch(self, pool: PoolKey, target: CacheTarget | None) -> None:
        """From now on asks this registry for the pool, soon if it is another one than before."""
        watched = self._watched.get(pool)
        if target is None:
            self.forget(pool)
        elif not self._is_over and (watched is None or watched.target != target):
            self.forget(pool)
            self._watched[pool] = _Watched(target, self._start(pool, target))

    def report(self, pool: PoolKey) -> CacheReport | None:
        """The last answer of the pool's registry."""
        watched = self._watched.get(pool)
        return watched.report if watched else None

    def forget(self, pool: PoolKey) -> None:
        """Asks no more for a pool."""
        watched = self._watched.pop(pool, None)
        if watched is not None:
            watched.task.cancel()

    async def run(self) -> None:
        """Goes on for ever; when cancelled, nobody is asked any more."""
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            self._is_over = True
            for pool in tuple(self._watched):
                self.forget(pool)
            if self._tasks:
                await asyncio.wait(self._tasks)

    def _start(self, pool: PoolKey, target: CacheTarget) -> asyncio.Task[None]:
        task = asyncio.create_task(self._attend(pool, target))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _attend(self, pool: PoolKey, target: CacheTarget) -> None:
        """Looks at one registry, again and again."""
        clock = asyncio.get_running_loop().time
        is_managed = target.keeper is not None
        failures, write_due = 0, clock()
        while True:
            write = not is_managed and (failures > 0 or write_due <= clock())
            async with self._troubled_slots if failures else self._slots:
                report = await self._look(pool, target, write=write)
            if write:
                write_due = clock() + WRITTEN_SECONDS
            failures = failures + 1 if report.trouble else 0
            self._tell(pool, report)
            pause = MANAGED_SECONDS if is_managed else EXTERNAL_SECONDS
            if failures:
                pause = pauses.growing(failures, first=TROUBLED_SECONDS, last=EXTERNAL_SECONDS)
            await asyncio.sleep(pauses.spread(pause, chance=self._chance()))

    async def _look(self, pool: PoolKey, target: CacheTarget, *, write: bool) -> CacheReport:
        try:
            return await self._inspect(target, write=write)
        except Exception as error:
            while isinstance(error, ExceptionGroup):
                error = error.exceptions[0]
            what = f"the operator could not ask {target.host}: {type(error).__name__}"
            trouble = Finding(Reason.REGISTRY_UNREACHABLE, f"{what}; look at the operator's log")
            report = CacheReport(trouble)
            if report != self.report(pool):
                log.error("%s: a defect in asking a registry", pool, exc_info=error)
            return report

    def _tell(self, pool: PoolKey, report: CacheReport) -> None:
        watched = self._watched.get(pool)
        is_current = watched is not None and watched.task is asyncio.current_task()
        if watched is None or not is_current or report == watched.report:
            return
        if report.trouble:
            log.info("%s: the cache cannot be used: %s", pool, report.trouble.message)
        watched.report = report
        self._wakeups.wake(pool)
