"""Lets a bounded number of pools at once replace their builders where that is the operator's doing.

Only bookkeeping between passes: who may, ``core.planning.turns`` decides. A restart forgets who
waits and for how long; who has begun goes on, for that stands in the pool's status.
"""

from __future__ import annotations

from buildpool.controller.wakeups import Wakeups
from buildpool.core.naming import PoolKey
from buildpool.core.planning.situation import Situation
from buildpool.core.planning.turns import Turns
from buildpool.process import utc_now


class RolloutTurns:
    """The turns of all pools of one operator."""

    def __init__(self, wakeups: Wakeups, *, limit: int) -> None:
        """``limit``: how many pools at once; 0: all."""
        self._wakeups = wakeups
        self._turns = Turns(limit)

    def told(self, s: Situation) -> Situation:
        """The same situation, with whether a rollout of our own doing may go on now."""
        pool = s.pool.key
        if s.is_changed_by_us:
            self._turns = self._turns.asked(pool, now=s.now)
        elif s.outdated:
            self._turns = self._turns.rolls(pool, now=s.now)
        else:
            self._end(pool)
        return s.with_turn(pool not in self._turns.waiting)

    def forget(self, pool: PoolKey) -> None:
        """A pool that is gone keeps nobody waiting."""
        self._end(pool)

    def _end(self, pool: PoolKey) -> None:
        has_turn, self._turns = pool in self._turns.rolling, self._turns.done(pool)
        if has_turn:
            for each in self._turns.next(now=utc_now()):
                self._wakeups.wake(each)
