"""How many builders a pool shall have, from the builds that run: up at once, down only after calm.

Pure. It never says which builders come or go; that is ``choice``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from buildpool.core.api import PoolSpec, SizeReason
from buildpool.core.api.warmth import Warmth, floor_of
from buildpool.core.scaling.values import Builder, Calm, LastDecision
from buildpool.core.words import counted


@dataclass(frozen=True, slots=True)
class Sizing:
    """A number of builders, and why it is so many."""

    size: int
    reason: SizeReason
    message: str
    calm: Calm | None = None
    """To be remembered until the next decision."""
    is_early: bool = False
    """Whether it will be more when fresh builds turn out to need room."""


@dataclass(frozen=True, slots=True)
class _Load:
    """The builds of a pool, counted."""

    builds: int
    """On builders that serve, as far as these say."""
    draining: int
    """On retired builders: these builds need no room any more."""
    silent: int
    """Builders that serve and do not say what they run. They make no pool grow; where a pool
    shrinks, each keeps its own place."""
    waiting: int
    """Builds without a slot, at the gateway."""
    shared: int
    """Builds in the slot of another one, as the gateway says."""
    fresh: int
    """Builds of which it may not have said so yet."""

    def __str__(self) -> str:
        """The same in words, to begin a sentence with."""
        text = f"{counted(self.builds, 'build')} {'runs' if self.builds == 1 else 'run'}"
        if self.shared:
            text += f" in {counted(self.builds - self.shared, 'slot')}"
        if self.waiting:
            text += f" and {self.waiting} {'waits' if self.waiting == 1 else 'wait'}"
        if self.draining:
            text += f", and {self.draining} more on builders that drain"
        if self.silent:
            text += f" ({counted(self.silent, 'builder')} did not say)"
        return text


def size_for(
    spec: PoolSpec,
    builders: Sequence[Builder],
    *,
    memory: LastDecision,
    waiting: int = 0,
    shared: int = 0,
    warmth: Warmth | None = None,
    now: datetime,
) -> Sizing:
    """How many builders the pool shall have now.

    ``waiting`` and ``shared`` are what the gateway says of builds: how many have no slot, and how
    many run in the slot of another one. ``warmth`` is what users ask for now.
    """
    if spec.replicas is not None:
        text = f"spec.replicas asks for {counted(spec.replicas, 'builder')}."
        return Sizing(spec.replicas, SizeReason.REPLICAS_SET, text)
    load = _load(builders, waiting, shared)
    least = floor_of(spec, warmth)
    was = _clamped(spec, _last_size(builders) if memory.size is None else memory.size, least)
    needed = _clamped(spec, _need(spec, load), least)
    if needed > was and load.fresh:
        sure = _clamped(spec, _need(spec, replace(load, builds=load.builds - load.fresh)), least)
        return _expectant(load, max(was, sure), memory.calm)
    if needed >= was:
        return _following(spec, load, needed, warmth)
    calm = _continued(memory.calm, needed, now)
    if now - calm.since < spec.scaling.idle_after:
        return _cooling(spec, load, size=was, needed=needed, calm=calm)
    size = min(was, max(calm.peak, needed + load.silent))
    if needed == size:
        return _following(spec, load, size, warmth)
    return _cooling(spec, load, size=size, needed=needed, calm=Calm(now, needed))


def _load(builders: Sequence[Builder], waiting: int, shared: int) -> _Load:
    serving = [builder for builder in builders if builder.retired is None]
    builds = sum(builder.builds or 0 for builder in serving)
    # The first one of a slot shares it with nobody, whatever anybody says.
    shared = max(0, min(shared, builds - 1))
    return _Load(
        builds=builds,
        shared=shared,
        fresh=min(sum(builder.fresh for builder in serving), builds - shared),
        draining=sum(builder.builds or 0 for builder in builders if builder.retired is not None),
        silent=sum(builder.builds is None for builder in serving),
        waiting=waiting,
    )


def _need(spec: PoolSpec, load: _Load) -> int:
    """How many builders keep utilization at its target, whatever the limits. Exact: no floats."""
    return -(
        -(load.builds - load.shared + load.waiting)
        * 100
        // (spec.builders.slots * spec.scaling.target_utilization)
    )


def _last_size(builders: Sequence[Builder]) -> int:
    """What the pool was meant to have, as it seems: a lost status must not shrink it at once."""
    return sum(builder.retired is None for builder in builders)


def _clamped(spec: PoolSpec, size: int, least: int) -> int:
    return max(least, min(spec.scaling.max, size))


def _continued(calm: Calm | None, needed: int, now: datetime) -> Calm:
    """The calm that goes on, or one that begins now."""
    if calm is None:
        return Calm(now, needed)
    # A clock that was set back must not prolong the calm by as much.
    return Calm(min(calm.since, now), max(calm.peak, needed))


def _following(spec: PoolSpec, load: _Load, size: int, warmth: Warmth | None) -> Sizing:
    """As many as the builds need, within the limits."""
    need = _need(spec, load)
    if need > spec.scaling.max:
        text = f"{load}; that needs {need} builders, but scaling.max is {size}."
        return Sizing(size, SizeReason.AT_MAXIMUM, text)
    if warmth is not None and size > max(need, spec.least):
        text = f"{load}; {counted(size, 'builder')} kept warm until {_moment(warmth.until)}."
        return Sizing(size, SizeReason.KEPT_WARM, text)
    if size == spec.least:
        text = f"{load}; the {counted(size, 'builder')} of scaling.min will do."
        return Sizing(size, SizeReason.AT_MINIMUM, text)
    room = f"{counted(size, 'builder')} of {counted(spec.builders.slots, 'slot')}"
    target = f"{spec.scaling.target_utilization} %"
    text = f"{load}; with {room}, utilization stays at {target} or less."
    return Sizing(size, SizeReason.FOLLOWS_LOAD, text)


def _expectant(load: _Load, size: int, calm: Calm | None) -> Sizing:
    """As many as are needed for sure, until the gateway has said what fresh builds need."""
    text = f"{load}; {load.fresh} of them began a moment ago, and may need no slot of their own."
    return Sizing(size, SizeReason.FOLLOWS_LOAD, text, calm, is_early=True)


def _cooling(spec: PoolSpec, load: _Load, *, size: int, needed: int, calm: Calm) -> Sizing:
    """More than the builds need, for a while."""
    # The text goes into the status: the time that is left would be another one every second.
    since = calm.since.astimezone(UTC)
    until = since + spec.scaling.idle_after
    day = "" if until.date() == since.date() else f"{until:%Y-%m-%d} "
    text = (
        f"{load}; {counted(needed, 'builder')} would do, but the pool keeps {size}"
        f" until {day}{until:%H:%M:%S} UTC, in case more builds come."
    )
    return Sizing(size, SizeReason.COOLING_DOWN, text, calm)


def _moment(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M:%S} UTC"
