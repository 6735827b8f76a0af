"""Asks the registries of shared caches how they are, and wakes a pool when the answer changes.

Outside of the passes: an answer can take seconds, and a pass must not wait for a registry. What a
pass is told is the last answer there was.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable
from dataclasses import dataclass
from typing import Final, Protocol

from buildpool.controller.wakeups import Wakeups
from buildpool.core.naming import PoolKey
from buildpool.core.observed.cache import CacheReport, CacheTarget

AT_ONCE: Final = 16
"""Registries asked at a time."""
MANAGED: Final = 10.0
"""Seconds between two looks at a managed registry: its disk can fill within a build."""
EXTERNAL: Final = 60.0
"""Seconds between two looks at somebody else's registry."""
TROUBLED: Final = 5.0
"""Seconds until the next look where something was wrong."""
WRITTEN: Final = 600.0
"""Seconds between two attempts to write to somebody else's registry. The keeper tells of ours."""
TICK: Final = 0.5
log = logging.getLogger(__name__)


class Inspect(Protocol):
    """Asks a registry; ``preflight.inspect``."""

    def __call__(self, target: CacheTarget, *, write: bool) -> Awaitable[CacheReport]:
        """What was found, with or without an attempt to write."""


@dataclass(slots=True)
class _Watched:
    target: CacheTarget
    report: CacheReport | None = None
    due: float = 0.0
    write_due: float = 0.0


class CachePoller:
    """Looks at the caches of pools."""

    def __init__(self, inspect: Inspect, wakeups: Wakeups) -> None:
        self._inspect = inspect
        self._wakeups = wakeups
        self._watched: dict[PoolKey, _Watched] = {}

    def watch(self, pool: PoolKey, target: CacheTarget | None) -> None:
        """From now on asks this registry for the pool, soon if it is another one than before."""
        watched = self._watched.get(pool)
        if target is None:
            self.forget(pool)
        elif watched is None or watched.target != target:
            self._watched[pool] = _Watched(target)

    def report(self, pool: PoolKey) -> CacheReport | None:
        """The last answer of the pool's registry."""
        watched = self._watched.get(pool)
        return watched.report if watched else None

    def forget(self, pool: PoolKey) -> None:
        """Asks no more for a pool."""
        self._watched.pop(pool, None)

    async def run(self) -> None:
        """Goes on for ever."""
        clock = asyncio.get_running_loop().time
        while True:
            due = [pool for pool, watched in self._watched.items() if watched.due <= clock()]
            await asyncio.gather(*(self._look(pool) for pool in due[:AT_ONCE]))
            await asyncio.sleep(TICK)

    async def _look(self, pool: PoolKey) -> None:
        watched, clock = self._watched[pool], asyncio.get_running_loop().time
        is_troubled = watched.report is not None and watched.report.trouble is not None
        is_managed = watched.target.keeper is not None
        write = not is_managed and (is_troubled or watched.write_due <= clock())
        report = await self._inspect(watched.target, write=write)
        if write:
            watched.write_due = clock() + WRITTEN
        pause = MANAGED if is_managed else EXTERNAL
        watched.due = clock() + (TROUBLED if report.trouble else pause)
        if report == watched.report:
            return
        if report.trouble:
            log.info("%s: the cache cannot be used: %s", pool, report.trouble.message)
        watched.report = report
        self._wakeups.wake(pool)
