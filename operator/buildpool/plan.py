"""The heart: from a pool and what was seen of its world to what shall be done, and why.

``plan`` is a function of its arguments. It reads no clock, talks to nobody, and twice the same
question gets the same answer. It decides *what*; how the answer is carried out is the controller's
business, and how the result is told to the user is ``verdict``'s.

    conflicts       names the pool needs that belong to somebody else: then nothing is done
    issue           certificates that are needed first; the caller issues them and asks again
    apply, delete   the difference between the objects the pool consists of and those that are there
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from buildpool import naming
from buildpool.api import EventReason, Pool
from buildpool.certificates import Issuance, issuances, next_renewal
from buildpool.observation import Observation
from buildpool.resources import (
    Object,
    Ref,
    component_of,
    first_difference,
    has_guard,
    is_builder,
    is_owned,
    is_terminating,
    ref_of,
)
from buildpool.resources.objects import was_applied_as
from buildpool.wanted import desired, wanted_refs

RESYNC: Final = timedelta(minutes=10)
"""The longest a pool is left alone: what every watch has missed is found then."""

TROUBLED: Final = timedelta(seconds=10)
"""How soon to look again where a name is taken or an object refused: no watch tells of its end."""


@dataclass(frozen=True, slots=True)
class Apply:
    """An object to be written, and why."""

    object: Object
    reason: EventReason | None
    """What to tell the user; None where it would not interest them."""
    message: str

    @property
    def ref(self) -> Ref:
        """Which object."""
        return ref_of(self.object)


@dataclass(frozen=True, slots=True)
class Delete:
    """An object to be removed, and why."""

    ref: Ref
    uid: str
    reason: EventReason | None
    message: str


@dataclass(frozen=True, slots=True)
class Plan:
    """What to do now, in this order, and when to look again."""

    issue: tuple[Issuance, ...] = ()
    """If not empty, nothing else is planned yet."""
    apply: tuple[Apply, ...] = ()
    delete: tuple[Delete, ...] = ()
    conflicts: tuple[Ref, ...] = ()
    """Names the pool needs that belong to somebody else."""
    recheck: timedelta = RESYNC


def plan(pool: Pool, observation: Observation, *, home: str, image: str, now: datetime) -> Plan:
    """What to do about a pool.

    ``home`` is the operator's own namespace, where the pool's authority lies; ``image`` its own
    image, of which some of the pool's containers are.
    """
    live = observation.live
    conflicts = tuple(
        ref for ref in wanted_refs(pool, home=home) if ref in live and not is_owned(live[ref], pool)
    )
    if conflicts:
        return Plan(conflicts=conflicts, recheck=TROUBLED)
    issue = tuple(issuances(pool, observation, home=home, now=now))
    if issue:
        return Plan(issue=issue)
    wanted = desired(pool, observation, home=home, image=image)
    return Plan(
        apply=_one_builder_at_a_time(tuple(_changes(wanted, observation)), live),
        delete=tuple(_leftovers(pool, observation, home=home)),
        recheck=_recheck(pool, observation, now=now),
    )


def _changes(wanted: Iterable[Object], observation: Observation) -> Iterator[Apply]:
    for obj in wanted:
        ref = ref_of(obj)
        there = observation.live.get(ref)
        if there is None:
            issued = EventReason.ISSUED_CERTIFICATE if ref.kind == "Secret" else None
            reason = issued or _CREATED.get(_what(obj))
            yield Apply(obj, reason, f"created {ref}")
        elif is_terminating(there):
            continue  # it comes back when it is gone, and its going wakes us
        elif ref in observation.issued:
            yield Apply(obj, EventReason.RENEWED_CERTIFICATE, f"renewed the certificate in {ref}")
        elif not was_applied_as(there, obj):
            yield Apply(obj, None, f"updated {ref}")
        elif (path := first_difference(there, obj)) not in (None, observation.overruled.get(ref)):
            message = f"{ref} had been changed at {path} by somebody else and was put right"
            yield Apply(obj, EventReason.REPAIRED_DRIFT, message)


def _what(obj: Object) -> tuple[str, str]:
    """Kind and component."""
    return obj["kind"], component_of(obj)


_CREATED: Final = {
    ("Deployment", naming.COMPONENT_BUILDER): EventReason.CREATED_BUILDER,
    ("Deployment", naming.COMPONENT_CACHE): EventReason.CREATED_CACHE,
}


def _one_builder_at_a_time(
    changes: tuple[Apply, ...], live: Mapping[Ref, Object]
) -> tuple[Apply, ...]:
    """New pods for one builder at a time; the next waits until this one serves again.

    Builders that are unsettled go first, since a bad revision is mended by the next one. New
    builders and changes that make no new pod wait for nobody. Nobody waits for a builder that no
    roll has brought down: it may lack a node for ever, and the others need new certificates.
    """
    rolling = [c for c in changes if is_builder(c.object) and _makes_new_pod(c, live)]
    if not rolling:
        return changes
    unsettled = {ref: obj for ref, obj in live.items() if is_builder(obj) and not is_settled(obj)}
    is_rolling = any(_may_be_rolling(deployment) for deployment in unsettled.values())
    turn = [c for c in rolling if c.ref in unsettled] or ([] if is_rolling else rolling[:1])
    return tuple(c for c in changes if c not in rolling or c in turn)


def _makes_new_pod(change: Apply, live: Mapping[Ref, Object]) -> bool:
    template = {"spec": {"template": change.object["spec"]["template"]}}
    return change.ref in live and first_difference(live[change.ref], template) is not None


def _may_be_rolling(unsettled: Object) -> bool:
    """Whether a new pod may be on its way while, or because, the old one was to go.

    A surging builder keeps its old pod until the new one serves: without any it is just down.
    """
    is_serving = (unsettled.get("status") or {}).get("availableReplicas", 0) > 0
    return bool(is_serving or unsettled["spec"]["strategy"]["type"] == "Recreate")


def is_settled(deployment: Object) -> bool:
    """Whether the pod a builder is meant to have is there and serves."""
    status = deployment.get("status") or {}
    wanted = deployment["spec"].get("replicas", 1)
    return bool(
        status.get("observedGeneration", 0) >= deployment["metadata"].get("generation", 0)
        and status.get("updatedReplicas", 0) >= wanted
        and status.get("availableReplicas", 0) >= wanted
        and status.get("replicas", 0) <= wanted
    )


def _leftovers(pool: Pool, observation: Observation, *, home: str) -> Iterator[Delete]:
    wanted = frozenset(wanted_refs(pool, home=home))
    left = [
        (ref, obj)
        for ref, obj in sorted(observation.live.items(), key=lambda item: item[0])
        if ref not in wanted and is_owned(obj, pool)
    ]
    # A build that runs may come back for what it has imported.
    is_read = any(has_guard(pod) for pod in observation.pods)
    # By the Deployment, the cache's Secrets are found again, which may not be listed: it goes last.
    has_secrets = any(_what(obj) == ("Secret", naming.COMPONENT_CACHE) for _, obj in left)
    for ref, obj in left:
        is_cache = component_of(obj) == naming.COMPONENT_CACHE
        waits = is_cache and (is_read or (has_secrets and ref.kind == "Deployment"))
        if waits or is_terminating(obj):
            continue
        message = f"removed {ref}, which the pool needs no more"
        yield Delete(ref, obj["metadata"]["uid"], _REMOVED.get(_what(obj)), message)


_REMOVED: Final = {
    ("Deployment", naming.COMPONENT_BUILDER): EventReason.REMOVED_BUILDER,
    ("Deployment", naming.COMPONENT_CACHE): EventReason.REMOVED_CACHE,
    ("Secret", naming.COMPONENT_CLIENT): EventReason.REMOVED_CLIENT,
}


def _recheck(pool: Pool, observation: Observation, *, now: datetime) -> timedelta:
    due = next_renewal(pool, observation)
    return RESYNC if due is None else max(timedelta(0), min(RESYNC, due - now))
