"""Which builders come, retire, serve again and go, once it is known how many there shall be.

Pure. It never picks a builder that may have builds to make a pool smaller, and never removes one
that still serves, or that may have builds which are not long overdue.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from itertools import count, islice
from typing import Final

from buildpool.core.api import PoolSpec, RetireReason
from buildpool.core.api.warmth import Warmth
from buildpool.core.scaling.size import Sizing, size_for
from buildpool.core.scaling.values import (
    FRESH,
    NOTICE,
    SETTLE,
    Builder,
    Decision,
    LastDecision,
    Retirement,
)
from buildpool.core.words import Finding

LOOK_AGAIN: Final = timedelta(seconds=1)
"""When to ask a retired builder again that did not yet prove to be idle."""


def decide(
    spec: PoolSpec,
    builders: Sequence[Builder],
    *,
    taken: frozenset[int],
    memory: LastDecision,
    waiting: int = 0,
    shared: int = 0,
    warmth: Warmth | None = None,
    now: datetime,
) -> Decision:
    """How many builders the pool shall have, and what to do about it now.

    ``taken`` are numbers that no new builder can have although no builder here has them, as where
    the pod of one that was removed still ends. ``waiting`` are builds without a slot, ``shared``
    those in the slot of another one. ``warmth`` is what users ask for now, beside what builds need.
    The order of the builders does not matter.
    """
    sizing = size_for(
        spec,
        builders,
        memory=memory,
        waiting=waiting,
        shared=shared,
        warmth=warmth,
        now=now,
    )
    size, rollout = sizing.size, spec.builders.rollout
    retired = [builder for builder in builders if builder.retired is not None]
    serving = [builder for builder in builders if builder.retired is None]

    surplus = _surplus([builder for builder in serving if builder.flaw is None], size)
    serving = _without(serving, surplus)
    replaced = _replaced(serving, least=size - rollout.max_unavailable)
    serving = _without(serving, replaced)

    # Nothing comes where a surplus went: as many as wanted are left of those without a flaw.
    missing = size - sum(builder.flaw is None for builder in serving)
    room = max(0, min(missing, size + rollout.max_surge - len(serving)))
    restored = _restorable(retired, since=now - spec.builders.max_build_duration)[:room]
    retired = _without(retired, restored)
    removed = [each for each in retired if _is_proven_idle(each) or _is_forsaken(spec, each, now)]
    return Decision(
        size=size,
        reason=sizing.reason,
        message=sizing.message,
        calm=sizing.calm,
        add=_free_numbers(room - len(restored), taken.union(each.index for each in builders)),
        restore=tuple(builder.index for builder in restored),
        retire=(
            *(_surplus_retirement(builder, size) for builder in surplus),
            *(_flaw_retirement(builder) for builder in replaced),
        ),
        remove=tuple(sorted(builder.index for builder in removed)),
        recheck=_recheck(
            spec,
            sizing,
            waiting=_without(retired, removed),
            warmth=warmth,
            retires=bool(surplus or replaced),
            now=now,
        ),
    )


def _without(builders: Iterable[Builder], others: Sequence[Builder]) -> list[Builder]:
    return [builder for builder in builders if builder not in others]


def _newest_first(builders: Iterable[Builder]) -> list[Builder]:
    return sorted(builders, key=lambda builder: (builder.created, builder.index), reverse=True)


def _surplus(current: Sequence[Builder], size: int) -> list[Builder]:
    """Idle builders that are too many: first those that take no builds yet, then the newest.

    Of those that take builds ``size`` stay, also where others that take none cannot be chosen.
    """
    excess = max(0, len(current) - size)
    spare = max(0, sum(builder.is_ready for builder in current) - size)
    idle = [builder for builder in _newest_first(current) if builder.is_idle]
    starting = [builder for builder in idle if not builder.is_ready][:excess]
    ready = [builder for builder in idle if builder.is_ready]
    return starting + ready[: min(spare, excess - len(starting))]


def _replaced(serving: Sequence[Builder], *, least: int) -> list[Builder]:
    """Builders with a flaw that may retire now, so that at least so many others take builds."""
    flawed = [builder for builder in serving if builder.flaw is not None]
    useless = [builder for builder in flawed if builder.is_idle and not builder.is_ready]
    useful = _without(_newest_first(flawed), useless)
    useful.sort(key=lambda builder: (builder.builds is None, builder.builds or 0))
    ready = sum(builder.is_ready for builder in serving)
    # One that is busy or silent but not ready may take builds again. It counts when another such
    # one is to go: otherwise two that never do would hold up a rollout for ever.
    hoped = sum(not builder.is_ready for builder in useful)
    chosen = []
    for builder in useful:
        if builder.is_ready and ready > least:
            ready -= 1
        elif not builder.is_ready and ready + hoped > least:
            hoped -= 1
        else:
            continue
        chosen.append(builder)
    return _newest_first(useless) + chosen


def _restorable(retired: Iterable[Builder], *, since: datetime) -> list[Builder]:
    """Retired builders that may serve again, first those that would stay longest anyway.

    Those that retired before ``since`` are overdue, and go.
    """
    usable = [
        builder
        for builder in _newest_first(retired)[::-1]
        if builder.flaw is None and builder.retired is not None and builder.retired > since
    ]
    return sorted(usable, key=lambda builder: -(builder.builds or 0))


def _free_numbers(number: int, used: frozenset[int]) -> tuple[int, ...]:
    """The lowest ones: where builders have volumes, these numbers have the warmest caches."""
    return tuple(islice((index for index in count() if index not in used), number))


def _is_proven_idle(builder: Builder) -> bool:
    """Whether it was seen without builds when it could get no new ones any more."""
    return (
        builder.is_idle
        and builder.retired is not None
        and builder.as_of is not None
        and builder.as_of >= builder.retired + SETTLE
    )


def _is_forsaken(spec: PoolSpec, builder: Builder, now: datetime) -> bool:
    """Whether its builds are overdue, and were reported for long enough."""
    is_late = builder.retired and now >= builder.retired + spec.builders.max_build_duration
    return bool(is_late and builder.overdue and now >= builder.overdue + NOTICE)


def _surplus_retirement(builder: Builder, size: int) -> Retirement:
    noun = "builder" if size == 1 else "builders"
    text = f"The pool needs no more than {size} {noun}."
    return Retirement(builder.index, Finding(RetireReason.SURPLUS, text))


def _flaw_retirement(builder: Builder) -> Retirement:
    assert builder.flaw is not None  # noqa: S101 - only such ones are replaced
    return Retirement(builder.index, builder.flaw)


def _recheck(
    spec: PoolSpec,
    sizing: Sizing,
    *,
    waiting: Sequence[Builder],
    warmth: Warmth | None,
    retires: bool,
    now: datetime,
) -> timedelta | None:
    """When time alone will change the decision: no event tells of that."""
    moments = [sizing.calm.since + spec.scaling.idle_after] if sizing.calm else []
    if warmth is not None:
        moments.append(warmth.until)
    if sizing.is_early:
        moments.append(now + FRESH)
    if retires:
        moments.append(now + SETTLE)
    for builder in waiting:
        if builder.retired is None:
            continue
        settled = builder.retired + SETTLE
        late = builder.retired + spec.builders.max_build_duration
        moments += [settled, late, max(late, (builder.overdue or late) + NOTICE)]
        if settled <= now and not builder.builds:
            moments.append(now + LOOK_AGAIN)
    return min((moment - now for moment in moments if moment > now), default=None)
