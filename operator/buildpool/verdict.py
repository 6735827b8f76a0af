"""What to tell the user after a pass: the pool's status, and the Events that lead there.

Pure: from the pool, what was seen, what was planned and what became of it. A condition's message
names the object and the remedy; its reason is used for the Event and the log, too.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Final

from buildpool import naming
from buildpool.api import (
    AuthorityStatus,
    BuilderStatus,
    ClientStatus,
    Condition,
    ConditionStatus,
    ConditionType,
    Pool,
    PoolStatus,
    Reason,
    set_condition,
)
from buildpool.cachestate import MAX_MESSAGE, cache_condition, cache_status
from buildpool.certificates import authority_at, bundle_at, certificate_requests, client_ref
from buildpool.diagnosis import Finding, diagnose, is_ready
from buildpool.errors import CertificateError, InvalidSpecError
from buildpool.observation import Observation
from buildpool.outcome import Event, EventType, Failure, Outcome
from buildpool.pki import Bundle, KeyPair, read
from buildpool.plan import Plan, is_settled
from buildpool.resources import Object, Ref, is_builder, is_owned
from buildpool.resources.deployment import revision_of

PATIENT: Final = frozenset(
    {
        Reason.BUILDERS_STARTING,
        Reason.CACHE_RESTING,
        Reason.CACHE_STARTING,
        Reason.CACHE_UNKNOWN,
        Reason.SCALED_TO_ZERO,
        Reason.TERMINATING,
    }
)
"""Reasons for not being ready that nobody needs to do anything about."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What to report."""

    status: PoolStatus
    events: tuple[Event, ...] = field(default=())


def conclude(
    pool: Pool, observation: Observation, plan: Plan, outcome: Outcome, *, home: str, now: datetime
) -> Verdict:
    """The status after a pass, and the Events of what was done and what has changed."""
    own = {ref: obj for ref, obj in observation.live.items() if is_owned(obj, pool)}
    observation = replace(observation, live=own)
    ends = {ref: _end_of(bundle_at(observation, ref)) for ref in certificate_requests(pool)}
    valid = all(end is not None and end > now for end in ends.values())
    builders = tuple(_builders(pool, observation))
    ready = sum(builder.ready for builder in builders)
    wanted = pool.spec.builder_count
    cache = cache_condition(pool, observation, outcome)
    conditions = (
        *([cache] if cache else []),
        _condition(pool, ConditionType.ACCEPTED, True, Reason.ACCEPTED, "The spec is valid."),
        _certificates(pool, plan, outcome, valid=valid),
        _progressing(pool, observation, plan, outcome, builders),
        _ready(pool, observation, plan, outcome, builders),
    )
    authority_ends = _end_of(authority_at(pool, observation, home=home))
    status = PoolStatus(
        observed_generation=pool.generation,
        conditions=_merged(pool.status, conditions, now),
        ready=f"{ready}/{wanted}",
        replicas=sum(is_builder(obj) for obj in observation.live.values()),
        ready_replicas=ready,
        selector=naming.format_selector(naming.builder_selector(pool.key)),
        endpoint=naming.endpoint(pool.key),
        image=pool.spec.builders.resolved_image,
        builders=builders,
        clients=tuple(_clients(pool, ends)),
        authority=AuthorityStatus(not_after=authority_ends) if authority_ends else None,
        cache=cache_status(pool, observation),
    )
    return Verdict(status, (*outcome.done, *_transitions(pool.status, status)))


def refuse(
    status: PoolStatus, error: InvalidSpecError, *, generation: int, now: datetime
) -> Verdict:
    """The status of a pool whose spec cannot be carried out: it says so and keeps the rest."""
    condition = Condition(
        type=ConditionType.ACCEPTED,
        status=ConditionStatus.FALSE,
        reason=Reason.INVALID_SPEC,
        message=f"{error} What was valid before keeps serving."[:MAX_MESSAGE],
        observed_generation=generation,
    )
    new = status.model_copy(
        update={
            "observed_generation": generation,
            "conditions": set_condition(status.conditions, condition, now),
        }
    )
    return Verdict(new, tuple(_transitions(status, new)))


def farewell(pool: Pool, *, draining: Sequence[str], now: datetime) -> Verdict:
    """The status of a pool that is being deleted."""
    message = (
        f"Waiting for running builds to finish on {', '.join(draining)}."
        if draining
        else "Everything is being removed."
    )
    ready = _condition(pool, ConditionType.READY, False, Reason.TERMINATING, message)
    new = pool.status.model_copy(
        update={
            "observed_generation": pool.generation,
            "conditions": set_condition(pool.status.conditions, ready, now),
            "ready": "0/0",
            "ready_replicas": 0,
            "replicas": len(draining),
        }
    )
    return Verdict(new, tuple(_transitions(pool.status, new)))


def _builders(pool: Pool, observation: Observation) -> Iterator[BuilderStatus]:
    for index in range(pool.spec.builder_count):
        name = naming.builder(pool.key, index)
        deployment = observation.live.get(Ref("Deployment", pool.key.namespace, name))
        pods = pods_of(observation, name)
        ready = any(is_ready(pod) for pod in pods)
        finding = diagnose(deployment, pods)
        if finding is None and not ready:
            finding = Finding(Reason.BUILDERS_STARTING, "the builder is starting")
        yield BuilderStatus(
            name=name,
            ready=ready,
            revision=revision_of(deployment) if deployment else "",
            reason=finding.reason if finding else None,
            message=finding.message[:MAX_MESSAGE] if finding else None,
        )


def pods_of(observation: Observation, builder: str) -> tuple[Object, ...]:
    """The pods of one builder: one, or for a while its successor beside it."""
    return tuple(
        pod
        for pod in observation.pods
        if pod["metadata"]["labels"].get(naming.LABEL_BUILDER) == builder
    )


def _clients(pool: Pool, ends: Mapping[Ref, datetime | None]) -> Iterator[ClientStatus]:
    for client in pool.spec.access.clients:
        ref = client_ref(pool, client.name)
        if end := ends[ref]:
            yield ClientStatus(name=client.name, secret=ref.name, not_after=end)


def _end_of(found: KeyPair | Bundle | None) -> datetime | None:
    """When a certificate ends; None where there is none that can be read."""
    pair = found.pair if isinstance(found, Bundle) else found
    try:
        return read(pair).not_after if pair else None
    except CertificateError:
        return None


def _certificates(pool: Pool, plan: Plan, outcome: Outcome, *, valid: bool) -> Condition:
    kind = ConditionType.CERTIFICATES_READY
    failures = [failure for failure in outcome.failures if failure.ref.kind == "Secret"]
    # Under a conflict nothing is issued: only what was there before can be valid.
    if plan.conflicts and not valid:
        return _condition(pool, kind, False, Reason.NAME_CONFLICT, _conflict(plan.conflicts))
    if failures:
        return _condition(pool, kind, False, Reason.CERTIFICATE_FAILED, _refusals(failures))
    count = len(pool.spec.access.clients)
    message = (
        f"The certificates of the builders and of {count} client{'s' * (count > 1)} are valid."
    )
    return _condition(pool, kind, True, Reason.ISSUED, message)


def _progressing(
    pool: Pool,
    observation: Observation,
    plan: Plan,
    outcome: Outcome,
    builders: Sequence[BuilderStatus],
) -> Condition:
    kind = ConditionType.PROGRESSING
    if plan.conflicts:
        return _condition(pool, kind, False, Reason.NAME_CONFLICT, _conflict(plan.conflicts))
    if outcome.failures:
        return _condition(pool, kind, False, Reason.OBJECT_REFUSED, _refusals(outcome.failures))
    live = {ref.name: obj for ref, obj in observation.live.items() if is_builder(obj)}
    surplus = sorted(set(live) - {builder.name for builder in builders})
    stuck = [b for b in builders if b.reason not in (None, *PATIENT)]
    if stuck:
        first = stuck[0]
        return _condition(
            pool, kind, False, Reason(first.reason or ""), f"{first.name}: {first.message}"
        )
    missing = [builder.name for builder in builders if builder.name not in live]
    if missing or surplus:
        message = f"Adding {len(missing)} and removing {len(surplus)} builders."
        return _condition(pool, kind, True, Reason.SCALING, message)
    unsettled = [b.name for b in builders if not is_settled(live[b.name])]
    if unsettled:
        message = f"Waiting for {', '.join(unsettled)}."
        return _condition(pool, kind, True, Reason.ROLLING_OUT, message)
    return _condition(pool, kind, False, Reason.SETTLED, "The pool is as its spec wants it.")


def _ready(
    pool: Pool,
    observation: Observation,
    plan: Plan,
    outcome: Outcome,
    builders: Sequence[BuilderStatus],
) -> Condition:
    kind = ConditionType.READY
    if plan.conflicts:
        return _condition(pool, kind, False, Reason.NAME_CONFLICT, _conflict(plan.conflicts))
    if not builders:
        message = "The pool shall have no builders: set spec.replicas to 1 or more, or remove it."
        return _condition(pool, kind, False, Reason.SCALED_TO_ZERO, message)
    ready = [builder for builder in builders if builder.ready]
    if len(ready) == len(builders):
        message = (
            f"All {len(builders)} builders take builds."
            if len(builders) > 1
            else "The builder takes builds."
        )
        return _condition(pool, kind, True, Reason.READY, message)
    if outcome.failures:
        return _condition(pool, kind, False, Reason.OBJECT_REFUSED, _refusals(outcome.failures))
    absent = sorted(observation.absent)
    if absent:
        reason = (
            Reason.SECRET_NOT_FOUND if absent[0].kind == "Secret" else Reason.CONFIG_MAP_NOT_FOUND
        )
        return _condition(pool, kind, False, reason, _missing(absent))
    lagging = [builder for builder in builders if not builder.ready]
    first = next((b for b in lagging if b.reason not in PATIENT), lagging[0])
    reason = Reason(first.reason or Reason.BUILDERS_STARTING)
    message = f"{len(ready)} of {len(builders)} builders are ready; {first.name}: {first.message}"
    return _condition(pool, kind, False, reason, message)


def _conflict(refs: Sequence[Ref]) -> str:
    names = ", ".join(str(ref) for ref in refs)
    return (
        f"{names} exists and is not this pool's; rename the pool or remove it. Nothing was changed."
    )


def _refusals(failures: Sequence[Failure]) -> str:
    return " ".join(f"{failure.ref} was refused: {failure.message}" for failure in failures)


def _missing(refs: Sequence[Ref]) -> str:
    names = ", ".join(str(ref) for ref in refs)
    return f"The spec names {names}, which does not exist; create it, and the builders start."


def _condition(
    pool: Pool, kind: ConditionType, holds: bool, reason: Reason, message: str
) -> Condition:
    return Condition(
        type=kind,
        status=ConditionStatus.TRUE if holds else ConditionStatus.FALSE,
        reason=reason,
        message=message[:MAX_MESSAGE],
        observed_generation=pool.generation,
    )


def _merged(old: PoolStatus, new: Sequence[Condition], now: datetime) -> tuple[Condition, ...]:
    said = {condition.type for condition in new}
    conditions = tuple(c for c in old.conditions if c.type != _OPTIONAL or c.type in said)
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
        if after is None:
            continue
        reason = Reason(after.reason)
        if before is not None and (before.status, before.reason) == (after.status, after.reason):
            continue
        if reason in _SILENT or (before is None and reason in _EXPECTED):
            continue
        if ready is not None and after is not ready and reason == ready.reason:
            continue  # told with the condition that matters more
        calm = after.status is ConditionStatus.TRUE or reason in PATIENT
        yield Event(EventType.NORMAL if calm else EventType.WARNING, reason, after.message)


_SILENT: Final = frozenset(
    {
        Reason.CACHE_STARTING,
        Reason.CACHE_UNKNOWN,
        Reason.ROLLING_OUT,
        Reason.SCALING,
        Reason.SETTLED,
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
