"""What the decisions about a pool's size are made from and what they come to. Values only."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from buildpool.core.api import RetireReason, SizeReason
from buildpool.core.words import Finding

SETTLE: Final = timedelta(seconds=3)
"""How long after its retirement a builder may still get a new build: until every node's proxy has
forgotten its address. What a daemon said before that proves nothing."""
FRESH: Final = timedelta(seconds=2)
"""How long after a build has begun behind the gateway it makes no pool grow: until then the gateway
may not have said whether it shares the slot of another one."""
NOTICE: Final = timedelta(minutes=10)
"""How long a retired builder's overdue build stands reported before its builder is removed. Its pod
then still has its own grace, which is ``maxBuildDuration``."""


@dataclass(frozen=True, slots=True)
class Builder:
    """One builder, as far as its size and replacement go."""

    index: int
    """Its number, by which it is named."""
    created: datetime
    is_ready: bool
    """Whether it takes connections, or would if it were not retired."""
    builds: int | None
    """Builds that run on it; 0 where no daemon runs; None where the daemon does not say."""
    as_of: datetime | None
    """When that was seen; None where it is not known."""
    fresh: int = 0
    """Those of its builds that are not known yet to need a slot of their own (``FRESH``)."""
    flaw: Finding[RetireReason] | None = None
    """Why it is not what the pool wants and has to be replaced; None where it is."""
    retired: datetime | None = None
    """Since when it takes no new builds."""
    overdue: datetime | None = None
    """Since when it stands reported that a build on it outlives what the pool allows."""

    @property
    def is_idle(self) -> bool:
        """Whether it is known that no build runs on it."""
        return self.builds == 0


@dataclass(frozen=True, slots=True)
class Calm:
    """A time in which the pool had more builders than its builds needed."""

    since: datetime
    peak: int
    """The most builders that were needed meanwhile."""


@dataclass(frozen=True, slots=True)
class LastDecision:
    """What the last decision left behind, kept in the pool's status."""

    size: int | None = None
    """Number of builders the pool was meant to have; None: nothing was decided yet."""
    calm: Calm | None = None


@dataclass(frozen=True, slots=True)
class Retirement:
    """A builder that is to take no more builds, and why."""

    index: int
    why: Finding[RetireReason]


@dataclass(frozen=True, slots=True)
class Decision:
    """How many builders there shall be, and what to do about it now."""

    size: int
    reason: SizeReason
    message: str
    calm: Calm | None = None
    add: tuple[int, ...] = ()
    """Numbers of new builders."""
    restore: tuple[int, ...] = ()
    """Retired builders that take builds again."""
    retire: tuple[Retirement, ...] = ()
    remove: tuple[int, ...] = ()
    """Retired builders that are proven idle, or whose builds are overdue and were reported."""
    recheck: timedelta | None = None
    """When time alone will change the decision; None: it will not."""
