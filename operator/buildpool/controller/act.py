"""Carries out a plan, object by object, and reports what became of each.

Whatever the API server says of one object is part of the outcome: it concerns that object and what
needs it, and the user is told. Every write is an apply of a whole object with a name of its own, so
what failed is simply done again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Iterable, Sequence
from typing import Final, TypeAlias

from buildpool.core import naming
from buildpool.core.api import Reason
from buildpool.core.api.events import Event, EventType
from buildpool.core.errors import ConflictError, KubernetesError, NotFoundError, UnavailableError
from buildpool.core.objects.drift import Difference, differences
from buildpool.core.objects.refs import Object, Ref, component_of, is_builder, owners_of
from buildpool.core.objects.security import lost_rights, rests
from buildpool.core.planning.issuances import Order, carry_out
from buildpool.core.planning.marks import Mark
from buildpool.core.planning.plan import Apply, Delete, Issued, Plan
from buildpool.core.reporting.outcome import Failure, Outcome, Overruled, insecure
from buildpool.core.resources.common import resting
from buildpool.kube.cluster import Cluster

_Result: TypeAlias = Event | Failure | Overruled | None


TAKEN: Final = "the name is somebody else's; rename the pool or remove the object"


async def issue(order: Order) -> Issued:
    """Issues what a plan needs, off the event loop: signatures take a processor's time."""
    return await asyncio.to_thread(carry_out, order)


async def act(cluster: Cluster, plan: Plan) -> Outcome:
    """Writes and removes what the plan says.

    In an order that a crash at any point does not hurt: first the marks, for the Service leads to
    marked pods only; then the authority, beside which stands whose Secrets there will be; then what
    builders need; then builders; then their shared cache; removals last.
    """
    outcome = _joined(Outcome(), await _each(_mark(cluster, mark) for mark in plan.mark))
    authority, needed, policy, builders, cache = _stages(plan.apply)
    for stage in (authority, needed, policy):
        results = await _each(_apply(cluster, c) for c in stage)
        outcome = _joined(outcome, results)
        if any(isinstance(result, Failure) for result in results):
            return outcome  # what comes later needs what was refused
    volumes = tuple(change for change in builders if not is_builder(change.object))
    outcome = _joined(outcome, await _each(_apply(cluster, c) for c in volumes))
    # A builder has the name of its volume, and must never get somebody else's.
    refused = {failure.ref.name for failure in outcome.failures}
    builders = tuple(c for c in builders if c not in volumes and c.ref.name not in refused)
    for stage in (builders, cache):
        outcome = _joined(outcome, await _each(_apply(cluster, c) for c in stage))
    return _joined(outcome, await _each(_remove(cluster, d) for d in plan.delete))


async def _each(requests: Iterable[Awaitable[_Result]]) -> Sequence[_Result]:
    """What became of each. Returns when all have ended: none may reach into the next pass."""
    results = await asyncio.gather(*requests, return_exceptions=True)
    return [_raised(result) for result in results]


def _raised(result: _Result | BaseException) -> _Result:
    if isinstance(result, BaseException):
        raise result
    return result


async def _remove(cluster: Cluster, deletion: Delete) -> _Result:
    """Removes one object; no failure where it is gone already."""
    try:
        await cluster.delete(deletion.ref, uid=deletion.uid, version=deletion.version)
    except ConflictError:
        return None  # a successor of the same name; the next pass will see it
    except KubernetesError as error:
        return _failure(deletion.ref, error)
    return _told(deletion)


async def _mark(cluster: Cluster, mark: Mark) -> _Result:
    try:
        await cluster.patch(mark.ref, {"metadata": {"uid": mark.uid, **mark.metadata}})
    except (NotFoundError, ConflictError):
        return None  # it is gone; the next pass will see it
    except KubernetesError as error:
        return _failure(mark.ref, error)
    return _told(mark)


async def _apply(cluster: Cluster, change: Apply) -> _Result:
    try:
        if change.is_unseen and not await _is_free(cluster, change):
            return Failure(change.ref, TAKEN, Reason.NAME_CONFLICT)
        if lost := await _lost_rights(cluster, change):
            return await _kept_at_rest(cluster, change, lost)
        stored = await cluster.apply(change.object)
        # A policy may have come in between, or not look at what is only tried.
        if lost := lost_rights(stored, change.object):
            # It is stored: a new pod would run so. One that runs goes once its builds have ended.
            await cluster.apply(resting(change.object))
            return insecure(change.ref, lost, runs=False)
    except KubernetesError as error:
        return _failure(change.ref, error)
    found = tuple(differences(stored, change.object))
    return Overruled(change.ref, found) if found else _told(change)


async def _lost_rights(cluster: Cluster, change: Apply) -> tuple[Difference, ...]:
    """What the cluster would not store of what keeps the pods of a Deployment from their node.

    Asked before anything is written: a pod that is privileged must not even begin outside of a user
    namespace, and one that runs safely must not be replaced by one that does not.
    """
    if change.object["kind"] != "Deployment":
        return ()
    if change.there is not None and rests(change.there):
        # Perhaps since it was refused: nothing begins by this, and every policy looks at it.
        stored = await cluster.apply(resting(change.object))
    else:
        stored = await cluster.apply(change.object, dry_run=True)
    return lost_rights(stored, change.object)


async def _kept_at_rest(cluster: Cluster, change: Apply, lost: Sequence[Difference]) -> Failure:
    """Has no pod run so. What runs is left alone, however it is: builds may run on it."""
    runs = change.there is not None and not rests(change.there)
    if not runs:
        # Where nothing has changed since the last try, the API server stores nothing.
        await cluster.apply(resting(change.object))
    return insecure(change.ref, lost, runs=runs)


def _failure(ref: Ref, error: KubernetesError) -> Failure:
    is_passing = isinstance(error, UnavailableError)
    return Failure(ref, str(error), Reason.OBJECT_FAILED if is_passing else Reason.OBJECT_REFUSED)


async def _is_free(cluster: Cluster, change: Apply) -> bool:
    """Whether nobody has the name of a new object, or we have and somebody took off its label."""
    found = await cluster.get(change.ref)
    if found is None:
        return True
    return not owners_of(change.object).isdisjoint(owners_of(found))


def _told(change: Apply | Delete | Mark) -> Event | None:
    if change.reason is None:
        return None
    message = change.message[:1].upper() + change.message[1:] + "."
    return Event(EventType.NORMAL, change.reason, message)


def _joined(outcome: Outcome, results: Iterable[_Result]) -> Outcome:
    results = tuple(results)
    overruled = tuple(result for result in results if isinstance(result, Overruled))
    events = tuple(result for result in results if isinstance(result, Event))
    failures = tuple(result for result in results if isinstance(result, Failure))
    return Outcome(
        (*outcome.done, *events, *(result.event for result in overruled)),
        (*outcome.failures, *failures),
        (*outcome.overruled, *overruled),
    )


def _stages(changes: Iterable[Apply]) -> tuple[tuple[Apply, ...], ...]:
    changes = tuple(changes)
    first = tuple(c for c in changes if component_of(c.object) == naming.COMPONENT_AUTHORITY)
    rest = tuple(change for change in changes if change not in first)
    cache = tuple(change for change in rest if _is_cache(change))
    builders = tuple(change for change in rest if _is_of_builder(change.object))
    # Behind the Service: where that is refused, nobody may be kept from the way there was.
    policy = tuple(change for change in rest if change.ref.kind == "NetworkPolicy")
    others = tuple(change for change in rest if change not in (*cache, *builders, *policy))
    # The cache last: where it is refused, the pool builds without it.
    return first, others, policy, builders, cache


def _is_of_builder(obj: Object) -> bool:
    """Whether it is a builder, or its volume."""
    return is_builder(obj) or naming.LABEL_BUILDER in obj["metadata"]["labels"]


def _is_cache(change: Apply) -> bool:
    """Whether it is part of the cache that builders can do without; their certificate is not."""
    obj = change.object
    return component_of(obj) == naming.COMPONENT_CACHE and obj["kind"] != "Secret"
