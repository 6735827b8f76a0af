"""What to tell the user after a pass: the pool's status, and the Events that lead there.

Pure: from the pool, what was seen, what was planned and what became of it. A condition's message
names the object and the remedy; its reason is used for the Event and the log, too.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Final

from buildpool.core import naming
from buildpool.core.api import (
    AuthorityStatus,
    ClientStatus,
    Condition,
    ConditionStatus,
    ConditionType,
    EventReason,
    Pool,
    PoolStatus,
    Reason,
    ScalingStatus,
    set_condition,
)
from buildpool.core.api.events import Event, EventType
from buildpool.core.api.status import CertificatesStatus
from buildpool.core.errors import CertificateError, InvalidSpecError, RefusedError
from buildpool.core.objects.refs import Ref
from buildpool.core.pki import Authority, AuthorityPhase, Bundle, KeyPair, read
from buildpool.core.planning.backlog import is_blocked
from buildpool.core.planning.certificates import (
    builder_ref,
    cache_secrets,
    client_ref,
    gateway_secrets,
)
from buildpool.core.planning.plan import Plan
from buildpool.core.planning.situation import Situation
from buildpool.core.reporting.builders import builder_statuses, overdue_events, shown
from buildpool.core.reporting.cache import cache_condition, cache_status
from buildpool.core.reporting.carried_out import (
    MACHINES,
    stalled,
    troubled,
    under_way,
    verdict_on,
)
from buildpool.core.reporting.case import PATIENT, Case
from buildpool.core.reporting.conditions import conditions_of, state_of
from buildpool.core.reporting.outcome import Failure, Outcome
from buildpool.core.reporting.requests import refusals, requested
from buildpool.core.words import Finding, counted


@dataclass(frozen=True, slots=True)
class Report:
    """What to report."""

    status: PoolStatus
    events: tuple[Event, ...] = field(default=())

    def after(self, events: tuple[Event, ...]) -> Report:
        """The same, with these Events before its own."""
        return replace(self, events=(*events, *self.events))


def report_pass(s: Situation, plan: Plan, outcome: Outcome) -> Report:
    """The status after a pass, and the Events of what was done and what has changed."""
    pool, now = s.pool, s.now
    if any(failure.ref.kind == "Secret" for failure in outcome.failures):
        # What was issued and not written is nowhere: what was there before counts.
        s = s.without_issued()
    ends = {ref: _end_of(bundle) for ref, bundle in s.bundles.items()}
    scaling = _scaling(s, plan)
    case = Case(
        s,
        plan,
        outcome,
        builders=builder_statuses(s, plan, outcome),
        size=scaling.size if scaling else pool.spec.builder_count,
        has_valid_certificates=all(end is not None and end > now for end in ends.values()),
    )
    cache = cache_condition(s, outcome)
    conditions = (*([cache] if cache else []), *conditions_of(case))
    slots = case.ready * pool.spec.builders.slots
    busy = sum(builder.builds or 0 for builder in case.builders)
    conditions = _merged(pool.status, conditions, now)
    refused = refusals(pool, now)
    verdict = verdict_on(case, {condition.type: condition for condition in conditions})
    status = PoolStatus(
        observed_generation=pool.generation,
        conditions=_with(conditions, verdict, now),
        # Those that are about to replace others count for these.
        ready=f"{min(case.ready, case.size)}/{case.size}",
        replicas=len(case.builders),
        ready_replicas=case.ready,
        busy=f"{busy}/{slots}",
        busy_slots=busy,
        slots=slots,
        waiting=s.backlog.waiting,
        blocked_since=s.backlog.since if is_blocked(s.backlog, now) else None,
        requests_refused=tuple(refused.values()),
        gateways=pool.status.gateways,
        scaling=scaling,
        selector=naming.format_selector(naming.builder_selector(pool.key)),
        endpoint=naming.endpoint(pool.key),
        image=pool.spec.builders.resolved_image,
        builders=shown(case.builders),
        clients=tuple(_clients(pool, ends)),
        certificates=_certificates(s, ends),
        authority=_authority(s.authority),
        cache=cache_status(s),
    )
    events = (
        *_scaled(pool.status, status),
        *outcome.done,
        *requested(pool, status, refused),
        *overdue_events(pool.status, status),
        *_blocked(pool.status, status),
        *_transitions(pool.status, status),
    )
    return Report(status, events)


def report_invalid(pool: Pool, error: InvalidSpecError, *, now: datetime) -> Report:
    """The status of a pool whose spec cannot be carried out: it says so and keeps the rest."""
    why = Finding(Reason.INVALID_SPEC, f"{error} What was valid before keeps serving.")
    refused = (state_of(pool, ConditionType.ACCEPTED, False, why), *stalled(pool, why))
    new = pool.status.model_copy(
        update={
            "observed_generation": pool.generation,
            "conditions": _with(pool.status.conditions, refused, now),
        }
    )
    return Report(new, tuple(_transitions(pool.status, new)))


def report_unseen(pool: Pool, error: RefusedError, *, now: datetime) -> Report:
    """The status of a pool of which the operator may not read all that it needs."""
    words = (
        f"The operator may not read what belongs to the pool: {error}; grant its role that right."
    )
    return _report_untended(pool, Finding(Reason.FORBIDDEN, words), now=now)


def report_unheld(pool: Pool, failure: Failure, *, now: datetime) -> Report:
    """The status of a pool on which the operator may not put its finalizer."""
    words = (
        f"{failure}. The operator does nothing for a pool before it has put its finalizer there; "
        "let it write finalizers."
    )
    return _report_untended(pool, Finding(failure.reason, words), now=now)


def _report_untended(pool: Pool, why: Finding[Reason], *, now: datetime) -> Report:
    said = (
        state_of(pool, ConditionType.READY, None, why),
        state_of(pool, ConditionType.PROGRESSING, False, why),
    )
    conditions = _with(pool.status.conditions, said, now)
    ready = [condition for condition in conditions if condition.type == ConditionType.READY]
    conditions = _with(conditions, troubled(pool, ready, now), now)
    seen = {"conditions": conditions, "observed_generation": pool.generation}
    new = pool.status.model_copy(update=seen)
    return Report(new, tuple(_transitions(pool.status, new)))


def report_removal(
    pool: Pool, *, draining: Sequence[str], failures: Sequence[Failure] = (), now: datetime
) -> Report:
    """The status of a pool that is being deleted."""
    if failures:
        why = Finding(failures[0].reason, " ".join(map(str, failures)))
    elif draining:
        waiting = f"Waiting for running builds to finish on {', '.join(draining)}."
        why = Finding(Reason.TERMINATING, waiting)
    else:
        why = Finding(Reason.TERMINATING, "Everything is being removed.")
    verdict = stalled(pool, why) if failures else under_way(pool, why)
    said = (state_of(pool, ConditionType.READY, False, why), *verdict)
    new = pool.status.model_copy(
        update={
            "observed_generation": pool.generation,
            "conditions": _with(pool.status.conditions, said, now),
            "ready": "0/0",
            "ready_replicas": 0,
            "replicas": len(draining),
        }
    )
    return Report(new, tuple(_transitions(pool.status, new)))


def _scaling(s: Situation, plan: Plan) -> ScalingStatus | None:
    """The decision of this pass; the last one where there was none."""
    old, decision = s.pool.status.scaling, plan.decision
    if decision is None:
        return old
    is_same = old is not None and old.size == decision.size
    return ScalingStatus(
        size=decision.size,
        reason=decision.reason.value,
        message=decision.message,
        since=old.since if is_same and old is not None else s.now.replace(microsecond=0),
        calm_since=decision.calm.since if decision.calm else None,
        peak=decision.calm.peak if decision.calm else None,
    )


def _scaled(old: PoolStatus, new: PoolStatus) -> Iterator[Event]:
    """An Event where the pool's size has changed; its first size is no change."""
    if old.scaling is None or new.scaling is None or old.scaling.size == new.scaling.size:
        return
    before, after = old.scaling.size, new.scaling.size
    reason = EventReason.SCALED_UP if after > before else EventReason.SCALED_DOWN
    message = f"From {before} to {after} builders ({new.scaling.reason}): {new.scaling.message}"
    yield Event(EventType.NORMAL, reason, message)


def _blocked(old: PoolStatus, new: PoolStatus) -> Iterator[Event]:
    """An Event where the queue has come to stand still; once for each time."""
    since = new.blocked_since
    if since is None or since == old.blocked_since:
        return
    ready = new.condition(ConditionType.READY)
    why = new.scaling.message if new.scaling else ""
    if ready is not None and ready.status is not ConditionStatus.TRUE:
        why = ready.message
    waiting = f"{counted(new.waiting, 'build')} waiting"
    message = f"{waiting}, and none got a slot since {since:%H:%M:%S} UTC. {why}"
    yield Event(EventType.WARNING, EventReason.QUEUE_BLOCKED, message)


def _authority(authority: Authority | None) -> AuthorityStatus | None:
    ends = _end_of(authority.signer if authority else None)
    if authority is None or ends is None:
        return None
    phase = None if authority.phase is AuthorityPhase.STEADY else authority.phase.value
    since = authority.since and authority.since.replace(microsecond=0)  # as it is stored
    return AuthorityStatus(not_after=ends, phase=phase, since=since)


def _clients(pool: Pool, ends: Mapping[Ref, datetime | None]) -> Iterator[ClientStatus]:
    for client in pool.spec.access.clients:
        ref = client_ref(pool, client.name)
        if end := ends[ref]:
            yield ClientStatus(name=client.name, secret=ref.name, not_after=end)


def _certificates(s: Situation, ends: Mapping[Ref, datetime | None]) -> CertificatesStatus:
    """The same of all that are no client's, as far as they can be read."""

    def first(*refs: Ref) -> datetime | None:
        return min(filter(None, map(ends.get, refs)), default=None)

    return CertificatesStatus(
        builder=first(builder_ref(s.pool)),
        gateway=first(*gateway_secrets(s.pool, s.installation)),
        cache=first(*cache_secrets(s.pool)),
    )


def _end_of(found: KeyPair | Bundle | None) -> datetime | None:
    """When a certificate ends; None where there is none that can be read."""
    pair = found.pair if isinstance(found, Bundle) else found
    try:
        return read(pair).not_after if pair else None
    except CertificateError:
        return None


def _merged(old: PoolStatus, new: Sequence[Condition], now: datetime) -> tuple[Condition, ...]:
    said = {condition.type for condition in new}
    kept = tuple(c for c in old.conditions if c.type != _OPTIONAL or c.type in said)
    return _with(kept, new, now)


def _with(
    conditions: tuple[Condition, ...], new: Sequence[Condition], now: datetime
) -> tuple[Condition, ...]:
    """The conditions with the new ones in their places."""
    for condition in new:
        conditions = set_condition(conditions, condition, now)
    return conditions


_OPTIONAL: Final = ConditionType.CACHE_READY
"""Not every pool has it."""


def _transitions(old: PoolStatus, new: PoolStatus) -> Iterator[Event]:
    """An Event where a condition has come to say something else, and it is worth hearing."""
    ready = new.condition(ConditionType.READY)
    for kind in ConditionType:
        before, after = old.condition(kind), new.condition(kind)
        if after is None or kind in _UNTOLD:
            continue
        if before is not None and (before.status, before.reason) == (after.status, after.reason):
            continue
        reason = Reason(after.reason)
        if reason in _SILENT or (before is None and reason in _EXPECTED):
            continue
        if ready is not None and after is not ready and reason == ready.reason:
            continue  # told with the condition that matters more
        calm = after.status is ConditionStatus.TRUE or reason in PATIENT
        yield Event(EventType.NORMAL if calm else EventType.WARNING, reason, after.message)


_UNTOLD: Final = frozenset({*MACHINES, ConditionType.UP_TO_DATE})
"""What these say, the Events of other conditions and of builders say."""
_SILENT: Final = frozenset(
    {
        Reason.CACHE_STARTING,
        Reason.CACHE_UNKNOWN,
        Reason.DRAINING,
        Reason.ROLLING_OUT,
        Reason.SCALING,
        Reason.SETTLED,
        Reason.WAITING_FOR_TURN,
    }
)
"""The Events of what was done say it already."""
_EXPECTED: Final = frozenset(
    {
        Reason.ACCEPTED,
        Reason.BUILDERS_STARTING,
        Reason.CACHE_RESTING,
        Reason.ISSUED,
    }
)
"""Not worth an Event on a new pool."""
