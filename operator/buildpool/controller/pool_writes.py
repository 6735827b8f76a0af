"""What is written to a BuildKitPool itself, and how: its status, its finalizer, its annotations.

The spec is the user's: nothing here touches it. Somebody else's change in between wins, and wakes
the pool again.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Final

from buildpool.core import naming
from buildpool.core.api import Pool, PoolStatus
from buildpool.core.errors import ConflictError, NotFoundError
from buildpool.core.naming import PoolKey
from buildpool.core.objects.refs import Object, pool_ref
from buildpool.core.planning.situation import Situation
from buildpool.kube.cluster import Cluster

TRIES: Final = 3
"""Of a change that somebody else's came before. A webhook may say so of every one."""


async def write_status(cluster: Cluster, pool: Pool, status: PoolStatus) -> None:
    """Reports; nothing is written where the pool says so already."""
    if status == pool.status:
        return
    body = {
        "apiVersion": naming.API_VERSION,
        "kind": naming.KIND,
        "metadata": {"name": pool.key.name, "namespace": pool.key.namespace},
        # What the gateway says is the gateway's to write.
        "status": {k: v for k, v in status.to_dict().items() if k != "gateways"},
    }
    with suppress(NotFoundError):  # deleted meanwhile
        await cluster.apply(body, subresource="status")


async def put_finalizer(cluster: Cluster, raw: Object) -> bool:
    """Has our finalizer hold a pool; False where the pool has changed meanwhile: look again."""
    metadata = raw["metadata"]
    there = metadata.get("finalizers") or []
    if naming.FINALIZER in there:
        return True
    held = [*there, naming.FINALIZER]
    change = {"metadata": {"finalizers": held, "resourceVersion": metadata["resourceVersion"]}}
    try:
        await cluster.patch(pool_ref(PoolKey(metadata["namespace"], metadata["name"])), change)
    except (ConflictError, NotFoundError):
        return False
    return True


async def remove_finalizer(cluster: Cluster, raw: Object) -> None:
    """Takes our finalizer off: with the last one, the API server drops the object."""
    metadata = raw["metadata"]
    there = metadata.get("finalizers") or []
    if naming.FINALIZER not in there:
        return  # whatever else holds it is not ours to take off
    kept = [name for name in there if name != naming.FINALIZER]
    change = {"metadata": {"finalizers": kept, "resourceVersion": metadata["resourceVersion"]}}
    ref = pool_ref(PoolKey(metadata["namespace"], metadata["name"]))
    with suppress(NotFoundError):
        await cluster.patch(ref, change)


async def remove_rotation_request(cluster: Cluster, pool: Pool) -> None:
    """Takes the request for a rotation off a pool, once it is carried out; not another request.

    One with a token stays: it is noted, and a tool would only put it back.
    """
    asked = pool.annotations.get(naming.ANNOTATION_ROTATE)
    if asked is not None and "-" in asked:
        return
    ref = pool_ref(pool.key)
    for _ in range(TRIES if asked is not None else 0):  # the next pass tries again
        raw = await cluster.get(ref)
        metadata = raw["metadata"] if raw else {}
        if (metadata.get("annotations") or {}).get(naming.ANNOTATION_ROTATE) != asked:
            return  # another request, which wakes us
        change = {
            "annotations": {naming.ANNOTATION_ROTATE: None},
            "resourceVersion": metadata["resourceVersion"],
        }
        with suppress(ConflictError, NotFoundError):
            await cluster.patch(ref, {"metadata": change})
            return


async def remove_gone_gateways(cluster: Cluster, s: Situation) -> None:
    """Removes the entries of pods of the gateway that are gone; nobody else does."""
    said = s.pool.status.gateways
    if len(s.gateways) == len(said):
        return
    ref = pool_ref(s.pool.key)
    raw = await cluster.get(ref)
    if raw is None or PoolStatus.read(raw.get("status")).gateways != said:
        return  # the change of it wakes us
    change = {
        "metadata": {"resourceVersion": raw["metadata"]["resourceVersion"]},
        "status": {"gateways": [entry.to_dict() for entry in s.gateways]},
    }
    with suppress(NotFoundError, ConflictError):
        await cluster.patch(ref, change, subresource="status")
