"""Who is to be looked at now. Events set a pool's wake-up; its tending waits for it.

A wake-up carries no message: a hundred events between two passes are one.
"""

from __future__ import annotations

import asyncio

from buildpool.core.naming import PoolKey


class Wakeups:
    """A flag for each pool that is tended. For one event loop."""

    def __init__(self) -> None:
        self._flags: dict[PoolKey, asyncio.Event] = {}

    def open(self, pool: PoolKey) -> asyncio.Event:
        """A new flag for a pool that is tended from now on."""
        flag = self._flags[pool] = asyncio.Event()
        return flag

    def close(self, pool: PoolKey) -> None:
        """Drops the flag of a pool that is tended no more."""
        del self._flags[pool]

    def wake_all(self) -> None:
        """Has every pool looked at soon."""
        for flag in self._flags.values():
            flag.set()

    def wake(self, pool: PoolKey) -> None:
        """Has the pool looked at soon; unknown pools are nobody's business."""
        if pool in self._flags:
            self._flags[pool].set()
