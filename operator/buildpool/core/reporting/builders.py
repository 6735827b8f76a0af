"""What to tell about each builder: where it is in its life, what runs on it, what is the matter.

Pure. Speaks of the builders as they are after the plan was carried out.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from typing import Final

from buildpool.core.api import BuilderState, BuilderStatus, EventReason, Pool, PoolStatus, Reason
from buildpool.core.api.duration import format_duration
from buildpool.core.api.events import Event, EventType
from buildpool.core.api.status import MAX_MESSAGE, format_time
from buildpool.core.observed.load import RunningBuild
from buildpool.core.planning.fleet import Member
from buildpool.core.planning.plan import Plan
from buildpool.core.reporting.diagnosis import diagnose
from buildpool.core.reporting.outcome import Outcome
from buildpool.core.scaling import NOTICE

UNKNOWN: Final = "(the daemon does not say which)"
"""Stands for builds of a daemon that does not answer, on a builder that should be gone by now."""


def builder_statuses(
    pool: Pool, plan: Plan, outcome: Outcome, *, now: datetime
) -> tuple[BuilderStatus, ...]:
    """The builders there are, but for those that were removed just now."""
    gone: frozenset[int] = frozenset()
    # Where anything was refused, they may be there still.
    if plan.decision and not outcome.failures:
        gone = frozenset(plan.decision.remove)
    return tuple(
        _status(pool, member, plan, now)
        for member in plan.members
        if member.builder.index not in gone
    )


def overdue_events(old: PoolStatus, new: PoolStatus) -> Iterator[Event]:
    """An Event for builds that have come to be overdue: before anything is done to them."""
    known = {builder.name: set(builder.overdue) for builder in old.builders}
    for builder in new.builders:
        if set(builder.overdue) - known.get(builder.name, set()):
            message = f"{builder.name}: {builder.message}"
            yield Event(EventType.WARNING, EventReason.BUILD_OVERDUE, message)


def _status(pool: Pool, member: Member, plan: Plan, now: datetime) -> BuilderStatus:
    builder = member.builder
    retired = _retired_since(member, plan, now)
    state = (
        BuilderState.DRAINING
        if retired is not None
        else BuilderState.SERVING
        if builder.is_ready
        else BuilderState.STARTING
    )
    overdue, since = _overdue(pool, member, retired, now)
    said = None
    if overdue:
        message = _about_overdue(pool, member, overdue, retired, since)
        said = EventReason.BUILD_OVERDUE.value, message
    if said is None and (finding := diagnose(member.deployment, member.pods)):
        said = finding.reason.value, finding.message
    if said is None and state is BuilderState.DRAINING:
        said = _why_it_drains(member, plan)
    if said is None and state is BuilderState.STARTING:
        said = Reason.BUILDERS_STARTING.value, "the builder is starting"
    return BuilderStatus(
        name=member.name,
        state=state,
        ready=state is BuilderState.SERVING,
        revision=member.revision,
        builds=builder.builds,
        served=member.served or None,
        overdue=overdue,
        overdue_since=since if overdue else None,
        reason=said[0] if said else None,
        message=said[1][:MAX_MESSAGE] if said else None,
    )


def _retired_since(member: Member, plan: Plan, now: datetime) -> datetime | None:
    index, decision = member.builder.index, plan.decision
    if decision and index in decision.restore:
        return None
    if decision and any(retirement.index == index for retirement in decision.retire):
        return now
    return member.builder.retired


def _why_it_drains(member: Member, plan: Plan) -> tuple[str, str]:
    for retirement in plan.decision.retire if plan.decision else ():
        if retirement.index == member.builder.index:
            return retirement.reason.value, retirement.message
    flaw = member.builder.flaw
    if flaw is not None:
        return flaw.reason.value, flaw.message
    return Reason.DRAINING.value, "it takes no new builds and goes once it has none"


def _overdue(
    pool: Pool, member: Member, retired: datetime | None, now: datetime
) -> tuple[tuple[str, ...], datetime]:
    """Builds that outlive what the pool allows, and when the last of them was reported."""
    limit = pool.spec.builders.max_build_duration
    before = next((b for b in pool.status.builders if b.name == member.name), None)
    known, since = (before.overdue, before.overdue_since) if before else ((), None)
    late = {
        b.ref for b in member.builds if (moment := _since(b, retired)) and moment + limit <= now
    }
    if member.builder.builds is None:
        # Who does not answer now has no fewer builds than before, or may have some.
        late |= set(known)
        if not late and retired is not None and retired + limit <= now:
            late |= {UNKNOWN}
    is_news = since is None or late - set(known)
    return tuple(sorted(late))[:64], now.replace(microsecond=0) if is_news else since or now


def _about_overdue(
    pool: Pool, member: Member, overdue: Sequence[str], retired: datetime | None, since: datetime
) -> str:
    """What is overdue, and what will be done about it."""
    limit = pool.spec.builders.max_build_duration
    # A pod keeps the grace with which it was made.
    graces = (pod["spec"].get("terminationGracePeriodSeconds") for pod in member.pods)
    grace = min((timedelta(seconds=each) for each in graces if each is not None), default=limit)
    deleted = max(since + NOTICE, (retired or since) + limit)
    follows = (
        "nothing is done to it while its builder is needed"
        if retired is None
        else f"its builder is to go: its pod is deleted at {format_time(deleted)} at the earliest "
        f"and ends it {format_duration(grace)} later"
    )
    return (
        f"build {', '.join(overdue)} runs for longer than builders.maxBuildDuration "
        f"({format_duration(limit)}); {follows}"
    )


def _since(build: RunningBuild, retired: datetime | None) -> datetime | None:
    """From when the time of a build counts: a builder that is to go waits as long for each."""
    moments = [moment for moment in (build.started, retired) if moment is not None]
    return min(moments, default=None)
