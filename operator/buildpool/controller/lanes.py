"""How many passes run at once: so many quick ones, and as many of pools that were slow before.

A pass that takes long waits for something of its own pool, such as a webhook that hangs. It leaves
its slot to others, so that no pool waits for another one's trouble; and the next pass over its pool
waits among the slow ones. Knows nothing of what a pass does. For one event loop.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from buildpool.core.naming import PoolKey

PATIENCE_SECONDS: Final = 1.0
"""Seconds after which a pass counts as slow. Most take a tenth of one."""

SLOW_FACTOR: Final = 5
"""How many times as long a pass of the slow lane keeps its slot: a good one may be among them."""


class Lanes:
    """Slots for passes, in two lanes."""

    def __init__(self, width: int, *, patience: float = PATIENCE_SECONDS) -> None:
        """``width``: slots of each lane; ``patience``: seconds that a quick pass may take."""
        self._quick = asyncio.Semaphore(width)
        self._slow = asyncio.Semaphore(width)
        self._patience = patience
        self._slow_pools: set[PoolKey] = set()
        """Those whose last pass was slow."""

    @asynccontextmanager
    async def slot(self, pool: PoolKey) -> AsyncIterator[None]:
        """Waits for a slot, and holds it for the length of a block, but no longer than patience."""
        lane = self._slow if pool in self._slow_pools else self._quick
        await lane.acquire()
        clock = asyncio.get_running_loop().time
        started, is_held = clock(), True

        def make_way() -> None:
            nonlocal is_held
            is_held = False
            lane.release()

        patience = self._patience * (1 if lane is self._quick else SLOW_FACTOR)
        leaving = asyncio.get_running_loop().call_later(patience, make_way)
        try:
            yield
        finally:
            leaving.cancel()
            if is_held:
                lane.release()
            if clock() < started + self._patience:
                self._slow_pools.discard(pool)
            else:
                self._slow_pools.add(pool)

    def forget(self, pool: PoolKey) -> None:
        """Remembers nothing more of a pool that is gone."""
        self._slow_pools.discard(pool)
