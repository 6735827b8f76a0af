"""Passes over one pool, one after the other, for as long as it lives.

Between two passes it sleeps until something wakes it, or until the last pass said to look again. A
pass that fails is repeated with growing pauses; it never ends the tending. Long pauses and those
after failures are spread: pools that were made together, or failed together, do not all come again
at once.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import timedelta
from time import monotonic
from typing import Final, Protocol

from buildpool.controller.lanes import Lanes
from buildpool.controller.metrics import PoolMetrics
from buildpool.controller.reconcile import Reconciler
from buildpool.controller.wakeups import Wakeups
from buildpool.core import pauses
from buildpool.core.errors import KubernetesError
from buildpool.core.naming import PoolKey
from buildpool.core.planning.plan import RESYNC

MIN_INTERVAL_SECONDS: Final = 0.2
"""Seconds between the starts of two passes: a burst of events is one pass."""
FIRST_RETRY_SECONDS: Final = 0.5
"""Seconds from a pass that failed to the next one; doubled while they fail."""
LAST_RETRY_SECONDS: Final = 30.0
END_SECONDS: Final = 10.0
"""For passes that run when all tending ends."""
log = logging.getLogger(__name__)


def backoff(failures: int, *, chance: float) -> float:
    """Seconds to wait after so many failures in a row; ``chance`` is from 0 up to 1."""
    pause = pauses.growing(failures, first=FIRST_RETRY_SECONDS, last=LAST_RETRY_SECONDS)
    return pauses.spread(pause, chance=chance)


def next_look(delay: timedelta, *, chance: float) -> float:
    """Seconds until the next pass: as the last one said, or up to a fifth less where it was long.

    Short ones are for a moment at which something is due, and are kept.
    """
    seconds = delay.total_seconds()
    return pauses.spread(seconds, chance=chance) if delay >= RESYNC else seconds


class Lookout(Protocol):
    """Somebody who looks at what no watch tells of."""

    def forget(self, pool: PoolKey) -> None:
        """Looks no more for a pool that is gone."""


class PoolLoop:
    """Tends pools: each in a loop of its own, a bounded number of passes at a time."""

    def __init__(
        self,
        reconciler: Reconciler,
        wakeups: Wakeups,
        lookouts: Sequence[Lookout],
        metrics: PoolMetrics,
        *,
        max_passes: int,
        chance: Callable[[], float] = random.random,
    ) -> None:
        """``chance`` gives numbers from 0 up to 1, by which pauses are spread."""
        self._reconciler = reconciler
        self._wakeups = wakeups
        self._lookouts = lookouts
        self._metrics = metrics
        self._chance = chance
        self._lanes = Lanes(max_passes)
        self._running: dict[PoolKey, float] = {}
        self._tasks: dict[PoolKey, asyncio.Task[None]] = {}
        self._is_over = False

    def start(self, pool: PoolKey) -> None:
        """Has a pool tended, one that is being deleted, too; by one loop, however often asked."""
        if pool not in self._tasks and not self._is_over:
            self._tasks[pool] = asyncio.create_task(self._tend(pool), name=f"tending {pool}")

    async def end(self) -> None:
        """Ends all tending, for good: passes that run have some seconds to come to their end."""
        self._is_over = True
        self._wakeups.wake_all()
        tasks = tuple(self._tasks.values())
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=END_SECONDS)
            for task in late:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _tend(self, pool: PoolKey) -> None:
        """Makes passes until the pool is gone, or until all tending ends."""
        wakeup, clock = self._wakeups.open(pool), asyncio.get_running_loop().time
        failures = 0
        try:
            while not self._is_over:
                wakeup.clear()
                started = clock()
                try:
                    delay = await self._pass(pool)
                    failures = 0
                except Exception as error:  # noqa: BLE001 - whatever it is, the next pass comes
                    failures += 1
                    delay = timedelta(seconds=backoff(failures, chance=self._chance()))
                    _log_failure(pool, failures, delay, error)
                if delay is None:
                    break
                pause = next_look(delay, chance=self._chance())
                with suppress(TimeoutError):
                    async with asyncio.timeout(pause):
                        await wakeup.wait()
                await asyncio.sleep(max(0.0, started + MIN_INTERVAL_SECONDS - clock()))
        finally:
            self._tasks.pop(pool, None)
            self._wakeups.close(pool)
            for lookout in self._lookouts:
                lookout.forget(pool)
            self._lanes.forget(pool)
            self._metrics.forget(pool)
        if wakeup.is_set():
            self.start(pool)  # another of its name may have come while the last pass looked

    async def _pass(self, pool: PoolKey) -> timedelta | None:
        async with self._lanes.slot(pool):
            if self._is_over:
                return None
            self._running[pool] = monotonic()
            try:
                with self._metrics.measured_pass(pool):
                    return await self._reconciler.reconcile(pool)
            finally:
                del self._running[pool]

    def oldest_pass(self) -> float:
        """Seconds since the oldest of the running passes began; 0 where none runs."""
        now = monotonic()
        return max((now - started for started in self._running.values()), default=0.0)


def _log_failure(pool: PoolKey, failures: int, delay: timedelta, error: Exception) -> None:
    known = isinstance(error, KubernetesError)
    log.log(
        logging.WARNING if known else logging.ERROR,
        "%s: pass %d in a row has failed, the next one is in %gs: %s: %s",
        pool,
        failures,
        delay.total_seconds(),
        type(error).__name__,
        error,
        extra={"pool": str(pool)},
        exc_info=None if known else error,
    )
