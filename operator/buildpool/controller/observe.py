"""Reads everything that bears on one pool.

By name where the names are known, for these may be taken by others, and since Secrets may not be
listed; by label otherwise. Every read asks the API server itself, never a cache: a pass acts on the
truth or not at all.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator
from typing import Final

from buildpool.core import naming
from buildpool.core.api import Pool, Routing
from buildpool.core.naming import Installation
from buildpool.core.objects.pods import has_ended, is_ready
from buildpool.core.objects.refs import Object, Ref, component_of, ref_of, text_at
from buildpool.core.observed.observation import Observation
from buildpool.core.planning.caches import cache_references
from buildpool.core.planning.certificates import (
    authority_ref,
    cache_secrets,
    client_ref,
    clients_with_secrets,
)
from buildpool.core.planning.names import desired_refs
from buildpool.kube.cluster import Cluster

LISTED: Final = (
    "ConfigMap",
    "Deployment",
    "NetworkPolicy",
    "PersistentVolumeClaim",
    "PodDisruptionBudget",
    "Service",
)
"""Kinds that are listed by label: so what the pool needs no more is found, too."""


async def observe(cluster: Cluster, pool: Pool, installation: Installation) -> Observation:
    """What is there of a pool, and what is not."""
    wanted, home = desired_refs(pool, installation), installation.namespace
    labels = {naming.LABEL_POOL: pool.key.name}
    live, pods, replica_sets, own, gateways, listed = await asyncio.gather(
        _read(cluster, (ref for ref in wanted if ref.kind not in LISTED)),
        cluster.select("Pod", pool.key.namespace, labels),
        cluster.select("ReplicaSet", pool.key.namespace, labels),
        # Those of the gateway are there for as long as anybody needs them, whatever is wanted now.
        cluster.select("Secret", home, {**labels, naming.LABEL_POOL_NAMESPACE: pool.key.namespace}),
        _gateways(cluster, pool, home=home),
        asyncio.gather(*(cluster.select(kind, pool.key.namespace, labels) for kind in LISTED)),
    )
    live |= {ref_of(obj): obj for objects in (own, *listed) for obj in objects}
    leaving = {
        client_ref(pool, name)
        for name in clients_with_secrets(pool, live.get(authority_ref(pool, installation)))
    }
    if any(component_of(obj) == naming.COMPONENT_CACHE for obj in live.values()):
        leaving |= set(cache_secrets(pool))
    # What is wanted and not listed is new, or its name belongs to somebody else.
    unlisted = {ref for ref in wanted if ref.kind in LISTED}
    references = frozenset(references_of(pool))
    # A builder whose labels somebody took off is still one, and its pods are not left behind.
    owners = frozenset(_owners(pool, replica_sets))
    live |= await _read(cluster, (leaving | unlisted | references | owners) - live.keys())
    # What the spec refers to is not the pool's, unless it is.
    theirs = references - leaving - set(wanted)
    return Observation(
        live={ref: obj for ref, obj in live.items() if ref not in theirs},
        pods=tuple(pod for pod in pods if component_of(pod) == naming.COMPONENT_BUILDER),
        cache_pods=tuple(pod for pod in pods if component_of(pod) == naming.COMPONENT_CACHE),
        replica_sets=tuple(replica_sets),
        gateways={pod["metadata"]["name"]: is_ready(pod) for pod in gateways},
        acknowledging=frozenset(
            pod["metadata"]["name"]
            for pod in gateways
            if text_at(pod, "metadata", "annotations", naming.ANNOTATION_ACKNOWLEDGES)
        ),
        absent=frozenset(ref for ref in references_of_builders(pool) if ref not in live),
        referred={ref: obj for ref, obj in live.items() if ref in references},
    )


def _owners(pool: Pool, replica_sets: Iterable[Object]) -> Iterator[Ref]:
    """The Deployments that the pool's ReplicaSets say they belong to."""
    for replica_set in replica_sets:
        for owner in replica_set["metadata"].get("ownerReferences") or ():
            if owner.get("kind") == "Deployment" and owner.get("controller"):
                yield Ref("Deployment", pool.key.namespace, owner["name"])


async def _gateways(cluster: Cluster, pool: Pool, *, home: str) -> list[Object]:
    """The pods of the gateway, where any serves the pool, or has told something about it."""
    if pool.spec.routing is not Routing.GATEWAY and not pool.status.gateways:
        return []
    labels = naming.installation_selector(naming.COMPONENT_GATEWAY)
    pods = await cluster.select("Pod", home, labels)
    return [pod for pod in pods if not has_ended(pod)]


def references_of(pool: Pool) -> Iterator[Ref]:
    """The Secrets and ConfigMaps of the user that the spec names."""
    yield from references_of_builders(pool)
    yield from cache_references(pool)


def references_of_builders(pool: Pool) -> Iterator[Ref]:
    """The Secrets and ConfigMaps of the user that the builders cannot start without."""
    namespace, builders = pool.key.namespace, pool.spec.builders
    for secret in builders.image_pull_secrets:
        yield Ref("Secret", namespace, secret.name)
    for registry in pool.spec.registries:
        if (bundle := registry.ca_bundle) is not None:
            yield Ref(bundle.kind, namespace, bundle.source.name)
    headers = builders.tracing.headers_from if builders.tracing is not None else None
    if headers is not None and not headers.optional:
        yield Ref("Secret", namespace, headers.name)
    for variable in builders.env:
        source = variable.value_from
        if source is None:
            continue
        if source.secret_key_ref is not None and not source.secret_key_ref.optional:
            yield Ref("Secret", namespace, source.secret_key_ref.name)
        if source.config_map_key_ref is not None and not source.config_map_key_ref.optional:
            yield Ref("ConfigMap", namespace, source.config_map_key_ref.name)


async def _read(cluster: Cluster, refs: Iterable[Ref]) -> dict[Ref, Object]:
    refs = tuple(refs)
    found = await asyncio.gather(*(cluster.get(ref) for ref in refs))
    return {ref: obj for ref, obj in zip(refs, found, strict=True) if obj is not None}
