"""Who is to be looked at now. Events set a pool's wake-up; its tending waits for it.

A wake-up carries no message: a hundred events between two passes are one.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict

from buildpool.naming import PoolKey


class Wakeups:
    """A flag for each pool. For one event loop."""

    def __init__(self) -> None:
        self._flags: defaultdict[PoolKey, asyncio.Event] = defaultdict(asyncio.Event)

    def __getitem__(self, pool: PoolKey) -> asyncio.Event:
        return self._flags[pool]

    def wake(self, pool: PoolKey) -> None:
        """Has the pool looked at soon; unknown pools are nobody's business."""
        if pool in self._flags:
            self._flags[pool].set()

    def forget(self, pool: PoolKey) -> None:
        """Drops the flag of a pool that is gone."""
        self._flags.pop(pool, None)
