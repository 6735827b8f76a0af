"""Lets a bounded number of pools at once replace their builders where that is the operator's doing.

Only bookkeeping between passes: who may, ``core.planning.turns`` decides. What must survive a
restart stands in the pools' status, and is read once, when a term begins.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import datetime

from buildpool.controller.wakeups import Wakeups
from buildpool.core.api import PoolStatus
from buildpool.core.naming import PoolKey
from buildpool.core.objects.refs import Object, mapping_at, ref_of
from buildpool.core.planning.situation import Situation
from buildpool.core.planning.turns import Turns, waiting_since
from buildpool.process import utc_now


class RolloutTurns:
    """The turns of all pools of one operator."""

    def __init__(
        self, wakeups: Wakeups, *, limit: int, clock: Callable[[], datetime] = utc_now
    ) -> None:
        """``limit``: how many pools at once; 0: all."""
        self._wakeups = wakeups
        self._turns = Turns(limit)
        self._clock = clock

    def resume(self, pools: Iterable[Object]) -> None:
        """Goes on where another operator has ended. Before any pass: these are all pools."""
        told = (
            (PoolKey(ref.namespace, ref.name), PoolStatus.read(mapping_at(pool, "status")))
            for pool in pools
            for ref in [ref_of(pool)]
        )
        self._turns = self._turns.resumed(told, now=self._clock())

    def told(self, s: Situation) -> Situation:
        """The same situation, with whether a rollout of our own doing may go on now."""
        pool = s.pool.key
        if s.is_changed_by_us:
            since = waiting_since(s.pool.status) or s.now
            self._become(self._turns.asked(pool, since=since, now=s.now), by=pool)
        elif s.outdated:
            self._become(self._turns.rolls(pool, now=s.now), by=pool)
        else:
            self._become(self._turns.done(pool, now=s.now), by=pool)
        return s.with_turn(pool not in self._turns.waiting)

    def forget(self, pool: PoolKey) -> None:
        """A pool that is gone keeps nobody waiting."""
        self._become(self._turns.done(pool, now=self._clock()), by=pool)

    def _become(self, turns: Turns, *, by: PoolKey) -> None:
        """Wakes those that have got a turn, but for the one that is looked at."""
        for pool in turns.ours.keys() - self._turns.ours.keys() - {by}:
            self._wakeups.wake(pool)
        self._turns = turns
