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
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from datetime import timedelta
from time import monotonic
from typing import Final, Protocol

from buildpool.controller.metrics import PoolMetrics
from buildpool.controller.reconcile import Reconciler
from buildpool.controller.wakeups import Wakeups
from buildpool.core import pauses
from buildpool.core.errors import KubernetesError
from buildpool.core.naming import PoolKey
from buildpool.core.planning.plan import RESYNC

MIN_INTERVAL: Final = 0.2
"""Seconds between the starts of two passes: a burst of events is one pass."""
FIRST_RETRY: Final = 0.5
"""Seconds from a pass that failed to the next one; doubled while they fail."""
LAST_RETRY: Final = 30.0
log = logging.getLogger(__name__)


def backoff(failures: int, *, chance: float) -> float:
    """Seconds to wait after so many failures in a row; ``chance`` is from 0 up to 1."""
    pause = pauses.growing(failures, first=FIRST_RETRY, last=LAST_RETRY)
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
        self._slots = asyncio.Semaphore(max_passes)
        self._running: dict[PoolKey, float] = {}

    async def tend(self, pool: PoolKey, is_over: Callable[[], bool], stopped: Awaiter) -> None:
        """Makes passes until the pool is gone or ``is_over`` says so.

        ``stopped`` waits for a signal that comes once: that the operator stops, or that the pool
        was deleted. The latter is no end but one more reason to look.
        """
        wakeup, clock = self._wakeups.open(pool), asyncio.get_running_loop().time
        signal = asyncio.ensure_future(stopped())
        failures = 0
        try:
            while not is_over():
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
                await _first_of(wakeup.wait(), signal, timeout=pause)
                await asyncio.sleep(max(0.0, started + MIN_INTERVAL - clock()))
        finally:
            signal.cancel()
            if self._wakeups.close(pool, wakeup):
                for lookout in self._lookouts:
                    lookout.forget(pool)
                self._metrics.forget(pool)

    async def _pass(self, pool: PoolKey) -> timedelta | None:
        async with self._slots:
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


Awaiter = Callable[[], Awaitable[object]]
"""Starts waiting for something."""


async def _first_of(
    wakeup: Coroutine[object, object, object],
    signal: asyncio.Future[object],
    *,
    timeout: float,  # noqa: ASYNC109
) -> None:
    waker = asyncio.ensure_future(wakeup)
    # The signal comes once: a second wait for it would never sleep.
    waited = {waker} if signal.done() else {waker, signal}
    try:
        await asyncio.wait(waited, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
    finally:
        waker.cancel()


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
