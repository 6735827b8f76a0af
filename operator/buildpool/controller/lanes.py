"""How many passes run at once: so many quick ones, and as many slow ones beside them.

A pass that takes long waits for something of its own pool, such as a webhook that hangs. It makes
way, so that no other pool waits for the same; and the next pass over its pool begins among the slow
ones. Knows nothing of what a pass does. For one event loop.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from buildpool.core.naming import PoolKey

PATIENCE_SECONDS: Final = 3.0
"""Seconds after which a pass counts as slow. Most take a tenth of one."""


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
        """Waits for a slot, and holds it for the length of a block."""
        held = [self._slow if pool in self._slow_pools else self._quick]
        await held[0].acquire()
        clock = asyncio.get_running_loop().time
        started = clock()
        leaving = asyncio.create_task(self._make_way(held))
        try:
            yield
        finally:
            leaving.cancel()
            held[0].release()
            if clock() < started + self._patience:
                self._slow_pools.discard(pool)
            else:
                self._slow_pools.add(pool)

    def forget(self, pool: PoolKey) -> None:
        """Remembers nothing more of a pool that is gone."""
        self._slow_pools.discard(pool)

    async def _make_way(self, held: list[asyncio.Semaphore]) -> None:
        """Takes a pass that has become slow into the other lane, once there is room."""
        await asyncio.sleep(self._patience)
        if held[0] is self._quick:
            await self._slow.acquire()
            held[0] = self._slow
            self._quick.release()
