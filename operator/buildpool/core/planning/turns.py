"""Whose turn it is to replace its builders where that is our doing and not the user's. Pure.

An upgrade of the operator can change what the builders of all pools run. A bounded number of pools
replaces them at once; the others serve as they are and wait, and the one that has waited longest is
next. What a user has changed never waits: whether a change is ours, ``Situation.is_changed_by_us``
says, and only such pools ever ask.

A pool that replaces its builders for another reason counts, so that ours come on top of nothing.
Nobody waits for ever: a rollout that is stuck counts for ``LONGEST``, and the rollouts of others
keep nobody waiting for longer than ``PATIENCE``. Who waits and since when stands in the pools'
status, so that another operator goes on where one has ended.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Final

from buildpool.core.api import Condition, ConditionType, PoolStatus, Reason
from buildpool.core.naming import PoolKey

LONGEST: Final = timedelta(hours=1)
"""How long a pool that replaces its builders keeps others waiting; then it is stuck, or slow."""
PATIENCE: Final = timedelta(days=1)
"""How long a pool waits for rollouts that are not the operator's doing."""


def said_of_builders(status: PoolStatus) -> Condition | None:
    """What the last pass said of whether builders are to be replaced; None before the first."""
    # Older operators have no condition for it.
    return status.condition(ConditionType.UP_TO_DATE) or status.condition(ConditionType.PROGRESSING)


def waiting_since(status: PoolStatus) -> datetime | None:
    """Since when a pool waits for its turn, as the last pass left it; None where it does not."""
    said = status.condition(ConditionType.UP_TO_DATE)
    waits = said is not None and said.reason == Reason.WAITING_FOR_TURN
    return said.last_transition_time if said is not None and waits else None


def is_replacing(status: PoolStatus) -> bool:
    """Whether a pool replaces its builders, as the last pass left it."""
    said = said_of_builders(status)
    return said is not None and said.reason == Reason.ROLLING_OUT


@dataclass(frozen=True, slots=True)
class Turns:
    """Who replaces builders and who waits, each with the moment since when."""

    limit: int
    """How many pools may replace builders at once; 0: all."""
    ours: Mapping[PoolKey, datetime] = field(default_factory=dict)
    """Those that have got a turn."""
    others: Mapping[PoolKey, datetime] = field(default_factory=dict)
    """Those that replace their builders for another reason."""
    waiting: Mapping[PoolKey, datetime] = field(default_factory=dict)
    """Those that wait for a turn."""

    def resumed(self, pools: Iterable[tuple[PoolKey, PoolStatus]], *, now: datetime) -> Turns:
        """What an operator that has just begun finds: what the pools' status says.

        Whose doing a rollout is that goes on, it does not say: each counts as ours.
        """
        found = dict(pools)
        waiting = {pool: waiting_since(status) for pool, status in found.items()}
        turns = replace(
            self,
            ours={pool: now for pool, status in found.items() if is_replacing(status)},
            # A moment to come was told by a clock that was ahead, or by somebody else.
            waiting={pool: min(since, now) for pool, since in waiting.items() if since},
        )
        return _granted(turns, now)

    def asked(self, pool: PoolKey, *, since: datetime, now: datetime) -> Turns:
        """What becomes of a pool that is to replace its builders by our doing, since then.

        Afterwards it either has a turn or waits. One that has a turn keeps it.
        """
        if pool in self.ours:
            return _granted(self, now)
        since = min(since, self.waiting.get(pool, now), now)
        others, waiting = _without(self.others, pool), {**self.waiting, pool: since}
        return _granted(replace(self, others=others, waiting=waiting), now)

    def rolls(self, pool: PoolKey, *, now: datetime) -> Turns:
        """With a pool that replaces its builders; it is asked nothing."""
        others, waiting = self.others, _without(self.waiting, pool)
        if pool not in self.ours:
            others = {**others, pool: others.get(pool, now)}
        return _granted(replace(self, others=others, waiting=waiting), now)

    def done(self, pool: PoolKey, *, now: datetime) -> Turns:
        """Without a pool whose builders are as they shall be, or that is gone."""
        turns = replace(
            self,
            ours=_without(self.ours, pool),
            others=_without(self.others, pool),
            waiting=_without(self.waiting, pool),
        )
        return _granted(turns, now)


def _granted(turns: Turns, now: datetime) -> Turns:
    """The same, with a turn for as many as may begin: first those that wait longest."""
    if not turns.waiting:
        return turns
    since, ours, others = turns.waiting, _counting(turns.ours, now), _counting(turns.others, now)
    granted: dict[PoolKey, datetime] = {}
    for pool in sorted(since, key=lambda each: (since[each], each)):
        taken = ours + len(granted) + (others if now - since[pool] < PATIENCE else 0)
        if turns.limit and taken >= turns.limit:
            break  # nobody after it has waited longer
        granted[pool] = now
    waiting = {pool: moment for pool, moment in since.items() if pool not in granted}
    return replace(turns, ours={**turns.ours, **granted}, waiting=waiting)


def _counting(rolling: Mapping[PoolKey, datetime], now: datetime) -> int:
    """How many of these keep others waiting."""
    return sum(now - since < LONGEST for since in rolling.values())


def _without(pools: Mapping[PoolKey, datetime], pool: PoolKey) -> Mapping[PoolKey, datetime]:
    return {key: since for key, since in pools.items() if key != pool} if pool in pools else pools
