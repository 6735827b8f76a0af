"""The heart: from a pool and what was seen of its world to what shall be done, and why.

``plan`` is a function of its arguments. It reads no clock, talks to nobody, and twice the same
question gets the same answer. It decides *what*; how the answer is carried out is the controller's
business, and how the result is told to the user is ``verdict``'s.

    conflicts       names the pool needs that belong to somebody else: then nothing is done
    issue           certificates that are needed first; the caller issues them and asks again
    decision        how many builders, and which come, retire and go (``scaling``)
    mark            what has to stand on objects that are there: who is to go, who is busy
    apply, delete   the difference between the objects the pool consists of and those that are there
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from buildpool.core import naming
from buildpool.core.api import EventReason, Pool
from buildpool.core.objects.drift import first_difference
from buildpool.core.objects.refs import (
    Object,
    Ref,
    component_of,
    is_builder,
    is_owned,
    is_terminating,
    ref_of,
)
from buildpool.core.observed.observation import Observation
from buildpool.core.planning.backlog import BLOCKED_AFTER, backlog_of
from buildpool.core.planning.certificates import Issuance, issuances, renewals
from buildpool.core.planning.desired import desired_builder, desired_objects, desired_refs
from buildpool.core.planning.fleet import (
    Member,
    desired_revision,
    everyone_runs,
    members_of,
    taken_numbers,
)
from buildpool.core.planning.marks import Mark, marks
from buildpool.core.resources import has_guard
from buildpool.core.resources.common import was_applied_as
from buildpool.core.scaling import Calm, Decision, LastDecision, decide

RESYNC: Final = timedelta(minutes=10)
"""The longest a pool is left alone: what every watch has missed is found then."""

TROUBLED: Final = timedelta(seconds=10)
"""How soon to look again where a name is taken or an object refused: no watch tells of its end."""

MEASURED: Final = timedelta(minutes=1)
"""How soon to look again where the memory of builders matters: the metrics are no fresher."""


@dataclass(frozen=True, slots=True)
class Apply:
    """An object to be written, and why."""

    object: Object
    reason: EventReason | None
    """What to tell the user; None where it would not interest them."""
    message: str
    is_unseen: bool = False
    """Whether nobody has looked yet if the name is somebody else's."""

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
    version: str | None = None
    """Its state, if it must not be removed in any other: another leader may have restored it."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What to do now, in this order, and when to look again."""

    issue: tuple[Issuance, ...] = ()
    """If not empty, nothing else is planned yet."""
    mark: tuple[Mark, ...] = ()
    apply: tuple[Apply, ...] = ()
    delete: tuple[Delete, ...] = ()
    conflicts: tuple[Ref, ...] = ()
    """Names the pool needs that belong to somebody else."""
    members: tuple[Member, ...] = ()
    """The builders there are, as they were seen."""
    decision: Decision | None = None
    """None where nothing can be decided: under a conflict."""
    recheck: timedelta = RESYNC

    @property
    def is_empty(self) -> bool:
        """Whether the pool is as it shall be, as far as it depends on us."""
        return not (self.issue or self.mark or self.apply or self.delete or self.conflicts)


def plan(
    pool: Pool, observation: Observation, *, home: str, image: str, gateway: str = "", now: datetime
) -> Plan:
    """What to do about a pool.

    ``home`` is the operator's own namespace, where the pool's authority lies; ``image`` its own
    image, of which some of the pool's containers are; ``gateway`` the Service of the gateway there,
    empty where there is none.
    """
    live = observation.live
    revision = desired_revision(pool, observation, image=image)
    members = members_of(pool, observation, revision=revision, now=now)
    conflicts = tuple(
        ref
        for ref in desired_refs(pool, home=home)
        if ref in live and not is_owned(live[ref], pool)
    )
    if conflicts:
        return Plan(conflicts=conflicts, members=members, recheck=TROUBLED)
    read = everyone_runs(pool, observation, revision=revision, image=image)
    issue = tuple(issuances(pool, observation, home=home, now=now, everyone_has_it=read))
    if issue:
        return Plan(issue=issue)
    decision = decide(
        pool.spec,
        [member.builder for member in members],
        taken=taken_numbers(pool, observation),
        memory=_memory(pool),
        waiting=backlog_of(pool, observation).waiting,
        now=now,
    )
    wanted = desired_objects(
        pool, observation, home=home, image=image, gateway=gateway, size=decision.size
    )
    return Plan(
        mark=tuple(marks(pool, members, decision, observation, now=now)),
        apply=(
            *_changes(wanted, observation),
            *_builders(pool, members, decision, observation, image=image),
        ),
        delete=(
            *_removals(members, decision),
            *_leftovers(pool, members, decision, observation, home=home),
            *strays(observation),
        ),
        members=members,
        decision=decision,
        recheck=_recheck(pool, members, decision, observation, home=home, now=now),
    )


def _memory(pool: Pool) -> LastDecision:
    """What the last decision left in the status."""
    said = pool.status.scaling
    if said is None:
        return LastDecision()
    calm = None
    if said.calm_since is not None and said.peak is not None:
        calm = Calm(said.calm_since, said.peak)
    return LastDecision(said.size, calm)


def _builders(
    pool: Pool,
    members: Iterable[Member],
    decision: Decision,
    observation: Observation,
    *,
    image: str,
) -> Iterator[Apply]:
    """New builders, and what somebody has changed of those that run what they shall.

    A builder that runs something else is never written again: it is replaced.
    """
    kept = [m.builder.index for m in members if m.is_current]
    for index in (*(i for i in kept if i not in decision.remove), *decision.add):
        for obj in desired_builder(pool, index, observation, image=image):
            there = observation.live.get(ref_of(obj))
            if there is not None and is_owned(there, pool):
                yield from _changes([obj], observation)
            else:
                reason = _CREATED.get(_what(obj))
                yield Apply(obj, reason, f"created {ref_of(obj)}", is_unseen=True)


def _removals(members: Iterable[Member], decision: Decision) -> Iterator[Delete]:
    for member in members:
        if member.builder.index in decision.remove:
            ref, metadata = member.ref, member.deployment["metadata"]
            why = (
                "its builds are overdue, and its pod's own grace begins"
                if not member.builder.is_idle
                else "no build runs on it"
            )
            yield Delete(
                ref,
                metadata["uid"],
                EventReason.REMOVED_BUILDER,
                f"removed {ref}: {why}",
                metadata["resourceVersion"],
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
            # Not everything that is issued is another certificate: it may trust another authority.
            is_new = there.get("data", {}).get("tls.crt") != obj["data"]["tls.crt"]
            reason = EventReason.RENEWED_CERTIFICATE if is_new else None
            yield Apply(obj, reason, f"renewed the certificate in {ref}")
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


def strays(observation: Observation) -> Iterator[Delete]:
    """ReplicaSets of builders whose Deployment is gone, and which would keep their pods for ever.

    Kubernetes collects them by itself, but for one case: where a Deployment went and another of its
    name came while the connection to the API server was broken, the garbage collector sees one
    Deployment that has changed. Those that belong to nobody are a new Deployment's to adopt.
    """
    there = {obj["metadata"]["uid"] for ref, obj in observation.live.items() if is_builder(obj)}
    for obj in observation.replica_sets:
        owners = obj["metadata"].get("ownerReferences") or ()
        owner = next((o for o in owners if o.get("controller") and o["kind"] == "Deployment"), None)
        is_builders = component_of(obj) == naming.COMPONENT_BUILDER
        if not is_builders or is_terminating(obj) or owner is None or owner["uid"] in there:
            continue
        ref = Ref("ReplicaSet", obj["metadata"]["namespace"], obj["metadata"]["name"])
        message = f"removed {ref}, whose Deployment is gone"
        yield Delete(ref, obj["metadata"]["uid"], None, message)


def _leftovers(
    pool: Pool,
    members: Sequence[Member],
    decision: Decision,
    observation: Observation,
    *,
    home: str,
) -> Iterator[Delete]:
    wanted = {
        *desired_refs(pool, home=home),
        *_kept_volumes(pool, members, decision, observation),
    }
    left = [
        (ref, obj)
        for ref, obj in sorted(observation.live.items(), key=lambda item: item[0])
        if ref not in wanted and is_owned(obj, pool) and not is_builder(obj)
    ]
    # A build that runs may come back for what it has imported.
    is_read = any(has_guard(pod) for pod in observation.pods)
    # And for its builder, through the gateway by which it came.
    is_building = any(member.builder.builds != 0 for member in members)
    # By the Deployment, the cache's Secrets are found again, which may not be listed: it goes last.
    has_secrets = any(_what(obj) == ("Secret", naming.COMPONENT_CACHE) for _, obj in left)
    for ref, obj in left:
        component = component_of(obj)
        is_cache = component == naming.COMPONENT_CACHE
        waits = is_cache and (is_read or (has_secrets and ref.kind == "Deployment"))
        waits = waits or (component == naming.COMPONENT_GATEWAY and is_building)
        if waits or is_terminating(obj):
            continue
        message = f"removed {ref}, which the pool needs no more"
        yield Delete(ref, obj["metadata"]["uid"], _REMOVED.get(_what(obj)), message)


_REMOVED: Final = {
    ("Deployment", naming.COMPONENT_CACHE): EventReason.REMOVED_CACHE,
    ("Secret", naming.COMPONENT_CLIENT): EventReason.REMOVED_CLIENT,
}


def _kept_volumes(
    pool: Pool, members: Iterable[Member], decision: Decision, observation: Observation
) -> Iterator[Ref]:
    """The volumes of builders, and those that wait, with their caches, for builders to come."""
    numbers = {member.builder.index for member in members} | taken_numbers(pool, observation)
    if pool.spec.builders.storage.volume_claim is not None:
        most = pool.spec.scaling.max if pool.spec.replicas is None else pool.spec.replicas
        room = max(decision.size, most) + pool.spec.builders.rollout.max_surge
        numbers |= {*decision.add, *range(room)}
    for number in numbers:
        name = naming.builder_volume(pool.key, number)
        yield Ref("PersistentVolumeClaim", pool.key.namespace, name)


def _recheck(
    pool: Pool,
    members: Iterable[Member],
    decision: Decision,
    observation: Observation,
    *,
    home: str,
    now: datetime,
) -> timedelta:
    """How long nothing will change by itself."""
    builders, recycle = pool.spec.builders, pool.spec.builders.recycle
    moments = [*renewals(pool, observation, home=home)]
    if (since := backlog_of(pool, observation).since) is not None:
        moments.append(since + BLOCKED_AFTER)
    for member in members:
        moments += [b.started + builders.max_build_duration for b in member.builds if b.started]
        if recycle.max_age is not None:
            moments.append(member.builder.created + recycle.max_age)
    waits = [RESYNC, *(moment - now for moment in moments if moment > now)]
    if decision.recheck is not None:
        waits.append(decision.recheck)
    if recycle.max_memory is not None:
        waits.append(MEASURED)
    return max(timedelta(0), min(waits))
