"""Whose turn it is to replace its builders where that is our doing and not the user's. Pure.

An upgrade of the operator can change what the builders of all pools run. A bounded number of pools
replaces them at once; the others serve as they are and wait. What a user has changed never waits:
whether a change is ours, ``Situation.is_changed_by_us`` says, and that is all who ever ask.

A pool that replaces its builders for whatever reason counts, so that ours come on top of nothing.
Nobody waits for ever: a rollout that is stuck counts for ``LONGEST``, and whoever has waited for
``PATIENCE`` waits no more.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Final

from buildpool.core.naming import PoolKey

LONGEST: Final = timedelta(hours=1)
"""How long a pool that replaces its builders keeps others waiting; then it is stuck, or slow."""
PATIENCE: Final = timedelta(days=1)
"""How long a pool waits at most."""


@dataclass(frozen=True, slots=True)
class Turns:
    """Who replaces builders and who waits, each with the moment since when."""

    limit: int
    """How many pools may replace builders at once; 0: all."""
    rolling: Mapping[PoolKey, datetime] = field(default_factory=dict)
    waiting: Mapping[PoolKey, datetime] = field(default_factory=dict)

    def asked(self, pool: PoolKey, *, now: datetime) -> Turns:
        """What becomes of a pool that is to replace its builders by our doing.

        Afterwards it either rolls or waits. One whose turn it is keeps it.
        """
        since = self.waiting.get(pool, now)
        if pool in self.rolling or self._room(now) > 0 or now - since >= PATIENCE:
            return self.rolls(pool, now=now)
        return replace(self, waiting={**self.waiting, pool: since})

    def rolls(self, pool: PoolKey, *, now: datetime) -> Turns:
        """With a pool that replaces its builders; it is asked nothing."""
        rolling = {**self.rolling, pool: self.rolling.get(pool, now)}
        return replace(self, rolling=rolling, waiting=_without(self.waiting, pool))

    def done(self, pool: PoolKey) -> Turns:
        """Without a pool whose builders are as they shall be, or that is gone."""
        return replace(
            self, rolling=_without(self.rolling, pool), waiting=_without(self.waiting, pool)
        )

    def next(self, *, now: datetime) -> tuple[PoolKey, ...]:
        """Those that would get a turn if they asked now, first who waits longest."""
        in_order = sorted(self.waiting, key=lambda pool: (self.waiting[pool], pool))
        return tuple(in_order[: max(0, self._room(now))])

    def _room(self, now: datetime) -> int:
        """How many more may begin."""
        if not self.limit:
            return len(self.waiting) + 1
        return self.limit - sum(now - since < LONGEST for since in self.rolling.values())


def _without(pools: Mapping[PoolKey, datetime], pool: PoolKey) -> Mapping[PoolKey, datetime]:
    return {key: since for key, since in pools.items() if key != pool} if pool in pools else pools
