"""Knows which builds run on every builder, and wakes a pool when one starts or ends.

Outside of the passes, as daemons take their time: a pass gets what they said last, and nothing
of those that do not answer. It never decides what an answer means.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from functools import partial
from typing import Protocol

from buildpool.buildkit import BuildEvent, DaemonAccess
from buildpool.buildkit.watcher import Connect, Target, WatchedDaemon, Watcher
from buildpool.core.naming import PoolKey
from buildpool.core.observed.load import Load
from buildpool.process import utc_now

OnEvent = Callable[[PoolKey, str, BuildEvent], None]
"""Hears of all that daemons say of their builds: of which pool, and by the uid of which pod."""


class Waker(Protocol):
    """What hears of it; ``controller.wakeups.Wakeups``."""

    def wake(self, pool: PoolKey) -> None:
        """Something has happened to a build of this pool."""


class Loads:
    """Watches the daemons of pools. For one event loop."""

    def __init__(
        self,
        connect: Connect,
        wakeups: Waker,
        *,
        clock: Callable[[], datetime] = utc_now,
        on_event: OnEvent = lambda *_: None,
    ) -> None:
        """``on_event`` hears of builds that start and end, of some more than once."""
        self._connect = connect
        self._wakeups = wakeups
        self._clock = clock
        self._on_event = on_event
        self._watched: dict[PoolKey, dict[str, Watcher]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._is_over = False

    def watch(self, pool: PoolKey, addresses: Mapping[str, str], access: DaemonAccess) -> None:
        """From now on asks exactly these daemons for the pool, by the uids of their pods.

        To repeat a call costs nothing. Where address or access are others than before, a new
        connection takes over from the old one as soon as the daemon answers it.
        """
        if self._is_over:
            return
        watched = self._watched.setdefault(pool, {})
        for uid in watched.keys() - addresses.keys():
            watched.pop(uid).stop()
        for uid, address in addresses.items():
            target = Target(address, access)
            if uid in watched:
                watched[uid].aim(target)
            else:
                watched[uid] = self._start(pool, uid, target)

    def loads(self, pool: PoolKey) -> Mapping[str, Load]:
        """What is known now, by the uids of pods, without daemons that do not answer."""
        watched = self._watched.get(pool, {})
        return {uid: watcher.load for uid, watcher in watched.items() if watcher.load is not None}

    def ask(self, pool: PoolKey, uids: Iterable[str]) -> None:
        """Asks these daemons at once, and wakes the pool with each answer to a later question.

        What was asked before this call does not count: ``Load.as_of`` will be later.
        """
        watched = self._watched.get(pool, {})
        for uid in uids:
            if uid in watched:
                watched[uid].ask()

    def daemons(self, pool: PoolKey) -> Mapping[str, WatchedDaemon | None]:
        """The daemons of a pool, by the uids of their pods; None where one does not answer now."""
        return {uid: watcher.daemon for uid, watcher in self._watched.get(pool, {}).items()}

    def forget(self, pool: PoolKey) -> None:
        """Asks no more for a pool that is gone, and hangs up."""
        for watcher in self._watched.pop(pool, {}).values():
            watcher.stop()

    async def run(self) -> None:
        """Goes on for ever; when cancelled, hangs up everywhere."""
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            self._is_over = True
            for pool in tuple(self._watched):
                self.forget(pool)
            if self._tasks:
                await asyncio.wait(self._tasks)

    def _start(self, pool: PoolKey, uid: str, target: Target) -> Watcher:
        wake = partial(self._wakeups.wake, pool)
        on_event = partial(self._on_event, pool, uid)
        name = f"{pool}, pod {uid}"
        watcher = Watcher(name, target, self._connect, wake, self._clock, on_event)
        self._tasks.add(watcher.task)
        watcher.task.add_done_callback(self._tasks.discard)
        return watcher
