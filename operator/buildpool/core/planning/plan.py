"""The heart: from what a pass knows of a pool to what shall be done, and why.

``plan`` is a function of its arguments. It reads no clock, talks to nobody, and twice the same
question gets the same answer. It decides *what*; how the answer is carried out is the controller's
business, and how the result is told to the user is ``reporting``'s.

    conflicts       names the pool needs that belong to somebody else: nothing is done that needs
                    them; a managed cache that cannot come is left out
    decision        how many builders, and which come, retire and go (``scaling``)
    mark            what has to stand on objects that are there: who is to go, who is busy
    apply, delete   the difference between the objects the pool consists of and those that are there

Certificates come first: ``plan_flow`` asks for them, and plans once it has them.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Final, TypeAlias

from buildpool.core import naming
from buildpool.core.api import ConditionStatus, ConditionType, EventReason, Pool
from buildpool.core.api.warmth import warmth_of
from buildpool.core.objects.drift import Difference, differences
from buildpool.core.objects.refs import (
    Object,
    Ref,
    component_of,
    is_terminating,
    ref_of,
)
from buildpool.core.observed.observation import Observation
from buildpool.core.pki import Authority, Bundle
from buildpool.core.planning.backlog import BLOCKED_AFTER
from buildpool.core.planning.desired import desired_builder, desired_objects
from buildpool.core.planning.issuances import Order, carry_out, issuances, renewals
from buildpool.core.planning.marks import Mark, marks
from buildpool.core.planning.names import desired_refs, optional_refs
from buildpool.core.planning.situation import Situation
from buildpool.core.resources import has_guard
from buildpool.core.resources.common import was_applied_as
from buildpool.core.scaling import Calm, Decision, LastDecision, decide

RESYNC: Final = timedelta(minutes=10)
"""The longest a pool is left alone: what every watch has missed is found then."""

GRACE: Final = timedelta(minutes=5)
"""How long a trouble that may end by itself is waited for before the pool counts as stalled."""

MEASURED: Final = timedelta(minutes=1)
"""How soon to look again where the memory of builders matters: the metrics are no fresher."""


@dataclass(frozen=True, slots=True)
class Apply:
    """An object to be written, and why."""

    object: Object
    reason: EventReason | None
    """What to tell the user; None where it would not interest them."""
    message: str
    there: Object | None = None
    """What it shall replace; None where nothing of ours is there."""
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

    mark: tuple[Mark, ...] = ()
    apply: tuple[Apply, ...] = ()
    delete: tuple[Delete, ...] = ()
    conflicts: tuple[Ref, ...] = ()
    """Names the pool needs that belong to somebody else."""
    is_blocked: bool = False
    """Whether nothing else is done because of them."""
    decision: Decision | None = None
    """None where nothing can be decided: under a conflict."""
    recheck: timedelta = RESYNC

    @property
    def is_empty(self) -> bool:
        """Whether the pool is as it shall be, as far as it depends on us."""
        return not (self.mark or self.apply or self.delete or self.conflicts)


Issued: TypeAlias = Mapping[Ref, Authority | Bundle]
"""What was issued, by the Secret that it is for."""
PlanFlow: TypeAlias = Generator[Order, Issued, tuple[Situation, Plan]]


def plan_flow(s: Situation) -> PlanFlow:
    """Plans; yields each order of certificates that are needed first, and is sent what was issued.

    Returns the situation with all of them, and the plan. Signing takes a processor's time, so that
    each driver does it where it may: the operator off its event loop.
    """
    while not _is_blocked(s) and (todo := tuple(issuances(s))):
        s = s.with_issued((yield Order(todo, s.authority, s.now)))
    return s, plan(s)


def planned(s: Situation) -> tuple[Situation, Plan]:
    """The same at once, of what is possible, for programs that have nothing else to do."""
    flow = plan_flow(s.possible())
    try:
        order = next(flow)
        while True:
            order = flow.send(carry_out(order))
    except StopIteration as end:
        found: tuple[Situation, Plan] = end.value
        return found


def plan(s: Situation) -> Plan:
    """What to do about a pool. Every certificate it needs has been issued (``plan_flow``)."""
    conflicts = tuple(sorted(s.taken))
    if _is_blocked(s):
        mark = tuple(marks(s, None))
        return Plan(mark=mark, conflicts=conflicts, is_blocked=True)
    decision = decide(
        s.pool.spec,
        [member.builder for member in s.members],
        taken=s.taken_numbers,
        memory=_last_decision(s.pool),
        waiting=s.backlog.waiting,
        shared=s.backlog.shared,
        warmth=warmth_of(s.pool, s.now),
        now=s.now,
    )
    return Plan(
        mark=tuple(marks(s, decision)),
        apply=(*_changes(desired_objects(s, decision.size), s), *_builders(s, decision)),
        delete=(*_removals(s, decision), *_leftovers(s, decision), *strays(s.observation)),
        conflicts=conflicts,
        decision=decision,
        recheck=_recheck(s, decision),
    )


def _is_blocked(s: Situation) -> bool:
    """Whether a name is taken that builders depend on."""
    return bool(s.taken - optional_refs(s.pool) - s.left_out)


def _last_decision(pool: Pool) -> LastDecision:
    """What the last decision left in the status."""
    said = pool.status.scaling
    if said is None:
        return LastDecision()
    calm = None
    if said.calm_since is not None and said.peak is not None:
        calm = Calm(said.calm_since, said.peak)
    return LastDecision(said.size, calm)


def _builders(s: Situation, decision: Decision) -> Iterator[Apply]:
    """New builders, and what somebody has changed of those that run what they shall.

    A builder that runs something else is never written again: it is replaced.
    """
    kept = [m.builder.index for m in s.members if m.is_current and not m.is_held]
    for index in (*(i for i in kept if i not in decision.remove), *decision.add):
        for obj in desired_builder(s, index):
            if ref_of(obj) in s.own:
                yield from _changes([obj], s)
            else:
                reason = _CREATED.get(_what(obj))
                yield Apply(obj, reason, f"created {ref_of(obj)}", is_unseen=True)


def _removals(s: Situation, decision: Decision) -> Iterator[Delete]:
    for member in s.members:
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


def _changes(wanted: Iterable[Object], s: Situation) -> Iterator[Apply]:
    for obj in wanted:
        ref = ref_of(obj)
        there = s.own.get(ref)
        if there is None:
            issued = EventReason.ISSUED_CERTIFICATE if ref.kind == "Secret" else None
            reason = issued or _CREATED.get(_what(obj))
            yield Apply(obj, reason, f"created {ref}")
        elif is_terminating(there):
            continue  # it comes back when it is gone, and its going wakes us
        elif ref in s.issued:
            # Not everything that is issued is another certificate: it may trust another authority.
            is_new = there.get("data", {}).get("tls.crt") != obj["data"]["tls.crt"]
            reason = EventReason.RENEWED_CERTIFICATE if is_new else None
            yield Apply(obj, reason, f"renewed the certificate in {ref}", there)
        elif not was_applied_as(there, obj):
            yield Apply(obj, None, f"updated {ref}", there)
        elif path := _drifted(there, obj, s.observation.overruled.get(ref, ())):
            message = f"{ref} had been changed at {path} by somebody else and was put right"
            yield Apply(obj, EventReason.REPAIRED_DRIFT, message, there)


def _drifted(there: Object, wanted: Object, overruled: Sequence[Difference]) -> str | None:
    """The first path at which somebody has changed an object; not what the cluster itself does."""
    found = (each.path for each in differences(there, wanted) if each not in overruled)
    return next(found, None)


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
    there = {obj["metadata"]["uid"] for ref, obj in observation.live.items()}
    for obj in observation.replica_sets:
        owners = obj["metadata"].get("ownerReferences") or ()
        owner = next((o for o in owners if o.get("controller") and o["kind"] == "Deployment"), None)
        is_builders = component_of(obj) == naming.COMPONENT_BUILDER
        if not is_builders or is_terminating(obj) or owner is None or owner["uid"] in there:
            continue
        ref = Ref("ReplicaSet", obj["metadata"]["namespace"], obj["metadata"]["name"])
        message = f"removed {ref}, whose Deployment is gone"
        yield Delete(ref, obj["metadata"]["uid"], None, message)


def _leftovers(s: Situation, decision: Decision) -> Iterator[Delete]:
    wanted = {*desired_refs(s.pool, s.installation), *_kept_volumes(s, decision)}
    builders = {ref_of(deployment) for deployment in s.deployments.values()}
    left = [
        (ref, obj)
        for ref, obj in sorted(s.own.items(), key=lambda item: item[0])
        if ref not in wanted and ref not in builders
    ]
    # A build that runs may come back for what it has imported.
    is_read = any(has_guard(pod) for pod in s.observation.pods)
    # And for its builder, through the gateway by which it came.
    is_building = any(member.builder.builds != 0 for member in s.members)
    # By the Deployment, the cache's Secrets are found again, which may not be listed: it goes last.
    has_secrets = any(_what(obj) == ("Secret", naming.COMPONENT_CACHE) for _, obj in left)
    for ref, obj in left:
        component = component_of(obj)
        is_cache = component == naming.COMPONENT_CACHE
        waits = is_cache and (is_read or (has_secrets and ref.kind == "Deployment"))
        waits = waits or (component == naming.COMPONENT_GATEWAY and is_building)
        if waits or is_terminating(obj):
            continue
        message = f"removed {ref}, which the pool does not need any more"
        yield Delete(ref, obj["metadata"]["uid"], _REMOVED.get(_what(obj)), message)


_REMOVED: Final = {
    ("Deployment", naming.COMPONENT_CACHE): EventReason.REMOVED_CACHE,
    ("Secret", naming.COMPONENT_CLIENT): EventReason.REMOVED_CLIENT,
}


def _kept_volumes(s: Situation, decision: Decision) -> Iterator[Ref]:
    """The volumes of builders, and those that wait, with their caches, for builders to come."""
    spec = s.pool.spec
    numbers = {member.builder.index for member in s.members} | s.taken_numbers
    if spec.builders.storage.volume_claim is not None:
        most = spec.scaling.max if spec.replicas is None else spec.replicas
        room = max(decision.size, most) + spec.builders.rollout.max_surge
        numbers |= {*decision.add, *range(room)}
    for number in numbers:
        name = naming.builder_volume(s.pool.key, number)
        yield Ref("PersistentVolumeClaim", s.pool.key.namespace, name)


def _recheck(s: Situation, decision: Decision) -> timedelta:
    """How long nothing will change by itself."""
    builders, recycle = s.pool.spec.builders, s.pool.spec.builders.recycle
    moments = [*renewals(s)]
    if s.backlog.since is not None:
        moments.append(s.backlog.since + BLOCKED_AFTER)
    said = s.pool.status
    reconciling = said.condition(ConditionType.RECONCILING)
    if reconciling is not None and reconciling.status is ConditionStatus.TRUE:
        changes = (condition.last_transition_time for condition in said.conditions)
        moments += [change + GRACE for change in changes if change is not None]
    for member in s.members:
        moments += [b.started + builders.max_build_duration for b in member.builds if b.started]
        if recycle.max_age is not None:
            moments.append(member.builder.created + recycle.max_age)
    waits = [RESYNC, *(moment - s.now for moment in moments if moment > s.now)]
    if decision.recheck is not None:
        waits.append(decision.recheck)
    if recycle.max_memory is not None:
        waits.append(MEASURED)
    return max(timedelta(0), min(waits))
