"""Why a pool has its size, when it will grow and when it will shrink.

Pure. Says what the operator's rules will do (``core.scaling``), as far as the status tells.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Final

from buildpool.core import naming
from buildpool.core.api import (
    BuilderState,
    Pool,
    PoolSpec,
    PoolStatus,
    Routing,
    ScalingStatus,
    SizeReason,
)
from buildpool.core.api.duration import format_duration
from buildpool.core.api.warmth import floor_of, warmth_of
from buildpool.core.explanation.layout import Row, at, later, sentence
from buildpool.core.words import counted

LATE: Final = timedelta(minutes=2)
"""How long after a decision was due its absence means that no operator is there."""
_UNSET: Final = """--type=merge -p '{"spec":{"replicas":null}}'"""


def size_rows(pool: Pool, spec: PoolSpec | None, now: datetime) -> Iterator[Row]:
    """Why it has its size, and what changes that; ``spec`` is None where it cannot be followed."""
    scaling = pool.status.scaling
    if scaling is None:
        return
    since = f" So many since {at(scaling.since, now)}." if scaling.since else ""
    yield Row(f"why {scaling.size}", (f"{scaling.reason}: {sentence(scaling.message)}{since}",))
    if spec is not None and spec.replicas is None:
        least = floor_of(spec, warmth_of(pool, now))
        down = _shrinkage(spec, pool.status, scaling, least, now)
        yield Row("next", (_growth(spec, scaling), down))
    elif spec is not None:
        text = "spec.replicas is set, and builds do not change it. To hand the size to scaling:"
        patch = f"kubectl patch {naming.SHORT_NAME} {pool.key.name} -n {pool.key.namespace}"
        yield Row("next", (text, f"{patch} {_UNSET}"))


def missed(spec: PoolSpec, scaling: ScalingStatus | None, now: datetime) -> datetime | None:
    """When the operator should have decided and has not; None where nothing was missed."""
    if scaling is None or scaling.calm_since is None or spec.replicas is not None:
        return None
    due = later(scaling.calm_since, spec.scaling.idle_after)
    return due if due < now - LATE else None


def _growth(spec: PoolSpec, scaling: ScalingStatus) -> str:
    if scaling.size < spec.scaling.max:
        enough = _capacity(spec, scaling.size)
        builds = f"more than {counted(enough, 'build')}" if enough else "a build"
        return f"It grows as soon as {builds} {_count(spec, is_one=enough <= 1)}."
    if scaling.reason == SizeReason.AT_MAXIMUM:
        return (
            f"It cannot grow: raise scaling.max ({spec.scaling.max}), or builders.slots "
            f"({spec.builders.slots}) where builders have power for more builds at once."
        )
    return f"It grows no further: scaling.max is {spec.scaling.max}."


def _shrinkage(
    spec: PoolSpec, status: PoolStatus, scaling: ScalingStatus, least: int, now: datetime
) -> str:
    if scaling.size <= spec.least:
        return f"It shrinks no further: scaling.min is {spec.least}."
    if scaling.size <= least:
        return "It shrinks no further for as long as it is kept warm."
    patience = spec.scaling.idle_after
    if scaling.calm_since is None or scaling.peak is None:
        few = _capacity(spec, scaling.size - 1)
        kinds = ", running or waiting," if spec.routing is Routing.GATEWAY else ""
        builds = f"no more than {counted(few, 'build')}{kinds} at a time" if few else "no builds"
        return (
            f"It shrinks once there were {builds} for "
            f"{format_duration(patience)} (scaling.idleAfter)."
        )
    due = later(scaling.calm_since, patience)
    size = max(scaling.peak, _least(spec, status, least))
    if size >= scaling.size:
        return "It does not shrink while builders do not say what they run."
    when = f"At {at(due, now)}" if due > now else "Any moment now"
    return f"{when} it shrinks to {size}, if no more builds come: builders without any go."


def _count(spec: PoolSpec, *, is_one: bool) -> str:
    """What builds do that count: no gateway lets more run than there are slots."""
    verbs = ("run", "wait") if spec.routing is Routing.GATEWAY else ("run",)
    return " or ".join(f"{verb}s" if is_one else verb for verb in verbs)


def _capacity(spec: PoolSpec, size: int) -> int:
    """The most builds for which so many builders are enough."""
    return size * spec.builders.slots * spec.scaling.target_utilization // 100


def _least(spec: PoolSpec, status: PoolStatus, least: int) -> int:
    """How many builders stay when the pool shrinks: those that do not say what they run, too.

    Builds that wait count as those that run, as they do for ``scaling``.
    """
    serving = [b.builds for b in status.builders if b.state is not BuilderState.DRAINING]
    builds = sum(filter(None, serving)) + status.waiting
    needed = -(-builds * 100 // (spec.builders.slots * spec.scaling.target_utilization))
    return max(least, needed) + serving.count(None)
