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
from buildpool.core.api.status import (
    MAX_BUILDERS,
    MAX_MESSAGE_CHARACTERS,
    MAX_RUNNING,
    MAX_RUNNING_OF_ALL,
    RunningStatus,
    format_time,
)
from buildpool.core.observed.load import RunningBuild
from buildpool.core.planning.fleet import Member
from buildpool.core.planning.plan import Plan
from buildpool.core.planning.situation import Situation
from buildpool.core.reporting.diagnosis import diagnose
from buildpool.core.reporting.outcome import Outcome
from buildpool.core.scaling import NOTICE
from buildpool.core.words import Finding, Word

UNKNOWN: Final = "(the daemon does not say which)"
"""Stands for builds of a daemon that does not answer, on a builder that should be gone by now."""


def builder_statuses(s: Situation, plan: Plan, outcome: Outcome) -> tuple[BuilderStatus, ...]:
    """The builders there are, but for those that were removed just now."""
    gone: frozenset[int] = frozenset()
    # Where anything was refused, they may be there still.
    if plan.decision and not outcome.failures:
        gone = frozenset(plan.decision.remove)
    named = max(1, min(MAX_RUNNING, MAX_RUNNING_OF_ALL // max(1, len(s.members))))
    return tuple(
        _status(s, member, plan, outcome, named=named)
        for member in s.members
        if member.builder.index not in gone
    )


def shown(builders: Sequence[BuilderStatus]) -> tuple[BuilderStatus, ...]:
    """As many of them as a status holds: those that serve first. The counts speak of all."""
    if len(builders) <= MAX_BUILDERS:
        return tuple(builders)
    first = sorted(builders, key=lambda builder: builder.state is BuilderState.DRAINING)
    kept = {builder.name for builder in first[:MAX_BUILDERS]}
    return tuple(builder for builder in builders if builder.name in kept)


def overdue_events(old: PoolStatus, new: PoolStatus) -> Iterator[Event]:
    """An Event for builds that have come to be overdue: before anything is done to them."""
    known = {builder.name: set(builder.overdue) for builder in old.builders}
    for builder in new.builders:
        if set(builder.overdue) - known.get(builder.name, set()):
            message = f"{builder.name}: {builder.message}"
            yield Event(EventType.WARNING, EventReason.BUILD_OVERDUE, message)


def _status(
    s: Situation, member: Member, plan: Plan, outcome: Outcome, *, named: int
) -> BuilderStatus:
    """``named`` is how many of its builds are named."""
    builder = member.builder
    is_marked = all(failure.ref != member.ref for failure in outcome.failures)
    retired = _retired_since(member, plan, s.now) if is_marked else builder.retired
    state = (
        BuilderState.DRAINING
        if retired is not None
        else BuilderState.SERVING
        if builder.is_ready
        else BuilderState.STARTING
    )
    overdue, since = _overdue(s, member, retired)
    why = _refused(member, outcome) or _about(s.pool, member, plan, state, overdue, retired, since)
    return BuilderStatus(
        name=member.name,
        state=state,
        ready=state is BuilderState.SERVING,
        revision=member.revision,
        builds=builder.builds,
        running=tuple(
            RunningStatus(ref=build.ref, since=build.started)
            for build in sorted(member.builds, key=_age)[:named]
        ),
        served=member.served or None,
        overdue=overdue,
        overdue_since=since if overdue else None,
        reason=why.reason.value if why else None,
        message=why.message[:MAX_MESSAGE_CHARACTERS] if why else None,
    )


def _age(build: RunningBuild) -> tuple[bool, float, str]:
    """The oldest first; those whose daemon does not say when they began last."""
    since = build.started
    return (since is None, since.timestamp() if since else 0.0, build.ref)


def _refused(member: Member, outcome: Outcome) -> Finding[Word] | None:
    """What the cluster makes of its pod, where that must not run."""
    return next(
        (
            Finding(failure.reason, failure.message)
            for failure in outcome.failures
            if failure.ref == member.ref and failure.reason is Reason.POD_REFUSED
        ),
        None,
    )


def _about(
    pool: Pool,
    member: Member,
    plan: Plan,
    state: BuilderState,
    overdue: Sequence[str],
    retired: datetime | None,
    since: datetime,
) -> Finding[Word] | None:
    """What is the matter with a builder; None where it serves and all is well."""
    if overdue:
        message = _about_overdue(pool, member, overdue, retired, since)
        return Finding(EventReason.BUILD_OVERDUE, message)
    if finding := diagnose(member.deployment, member.pods):
        return finding
    if state is BuilderState.DRAINING:
        return _why_it_drains(member, plan)
    if state is BuilderState.STARTING:
        return Finding(Reason.BUILDERS_STARTING, "the builder is starting")
    return None


def _retired_since(member: Member, plan: Plan, now: datetime) -> datetime | None:
    index, decision = member.builder.index, plan.decision
    if decision and index in decision.restore:
        return None
    if decision and any(retirement.index == index for retirement in decision.retire):
        return now
    return member.builder.retired


def _why_it_drains(member: Member, plan: Plan) -> Finding[Word]:
    for retirement in plan.decision.retire if plan.decision else ():
        if retirement.index == member.builder.index:
            return retirement.why
    if member.builder.flaw is not None:
        return member.builder.flaw
    return Finding(Reason.DRAINING, "it takes no new builds and is removed once it has none")


def _overdue(
    s: Situation, member: Member, retired: datetime | None
) -> tuple[tuple[str, ...], datetime]:
    """Builds that outlive what the pool allows, and when the last of them was reported."""
    limit, now = s.pool.spec.builders.max_build_duration, s.now
    before = next((b for b in s.pool.status.builders if b.name == member.name), None)
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
