"""What a pool shall consist of: the names, the certificates, and the objects themselves.

Pure. What of it is to be done now, and in which order, is ``plan``'s to decide.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from buildpool.core import naming
from buildpool.core.api import Pool, Routing
from buildpool.core.objects.refs import Object, Ref, is_builder, is_owned
from buildpool.core.observed.observation import Observation
from buildpool.core.pki import Bundle
from buildpool.core.planning.certificates import (
    authority_of,
    authority_ref,
    builder_ref,
    bundle_at,
    cache_secrets,
    certificate_requests,
    client_ref,
    gateway_secrets,
    noted_clients,
)
from buildpool.core.resources import (
    authority_secret,
    builder_config,
    builder_deployment,
    builder_policy,
    builder_volume,
    cache_config,
    cache_deployment,
    cache_recipes,
    cache_service,
    cache_volume,
    certificate_secret,
    disruption_budget,
    gateway_secret,
    managed_registry,
    pool_service,
    recipes_config,
    upstream_secret,
)


def desired_refs(pool: Pool, *, home: str) -> tuple[Ref, ...]:
    """The names of all objects the pool shall consist of, but for its builders.

    How many of these there are and with which numbers is decided anew in each pass.
    """
    key = pool.key
    gateway = pool.spec.routing is Routing.GATEWAY
    recipes = pool.spec.cache.registry is not None
    return (
        authority_ref(pool, home=home),
        *certificate_requests(pool, home=home),
        Ref("ConfigMap", key.namespace, naming.builder_config(key)),
        *([Ref("NetworkPolicy", key.namespace, naming.builder_policy(key))] if gateway else []),
        Ref("Service", key.namespace, naming.service(key)),
        Ref("PodDisruptionBudget", key.namespace, naming.disruption_budget(key)),
        *([Ref("ConfigMap", key.namespace, naming.cache_recipes(key))] if recipes else []),
        *(_cache_refs(pool) if managed_registry(pool) else ()),
    )


def _cache_refs(pool: Pool) -> Iterator[Ref]:
    for kind in ("ConfigMap", "Service", "PersistentVolumeClaim", "Deployment"):
        yield Ref(kind, pool.key.namespace, naming.cache(pool.key))


def desired_objects(
    pool: Pool, observation: Observation, *, home: str, image: str, gateway: str, size: int
) -> Iterator[Object]:
    """Every object the pool consists of but its builders, in the order in which they are needed.

    Every certificate has to be there already. ``image`` is the operator's own; ``gateway`` is the
    gateway's Service; ``size`` is how many builders there shall be.
    """
    authority = authority_of(pool, observation, home=home)
    assert authority is not None  # noqa: S101 - asked for before
    clients = {client.name for client in pool.spec.access.clients}
    # A client that is no longer wanted stays noted until its Secret is gone, too.
    leaving = {
        name
        for name in noted_clients(pool, observation.live, home=home)
        if client_ref(pool, name) in observation.live
    }
    yield authority_secret(pool, authority, namespace=home, clients=sorted(clients | leaving))
    gateways = gateway_secrets(pool, home=home)
    for ref in certificate_requests(pool, home=home):
        if ref not in gateways:
            component = _components(pool).get(ref.name, naming.COMPONENT_CLIENT)
            yield certificate_secret(pool, ref.name, _bundle(observation, ref), component=component)
    if pool.spec.routing is Routing.GATEWAY:
        server, upstream = gateways
        yield gateway_secret(pool, _bundle(observation, server), namespace=home)
        yield upstream_secret(pool, _bundle(observation, upstream), namespace=home)
    yield builder_config(pool)
    if policy := builder_policy(pool, home=home):
        yield policy
    yield pool_service(pool, gateway=f"{gateway}.{home}.svc.{naming.CLUSTER_DOMAIN}")
    yield disruption_budget(pool)
    if recipes := cache_recipes(pool):
        yield recipes_config(pool, recipes)
    if managed := managed_registry(pool):
        yield cache_config(pool)
        yield cache_service(pool)
        yield cache_volume(pool, managed)
        yield cache_deployment(
            pool,
            managed,
            image=image,
            certificate=_bundle(observation, cache_secrets(pool)[0]),
            is_awake=size > 0 or has_builders(pool, observation),
        )


def desired_builder(
    pool: Pool, index: int, observation: Observation, *, image: str
) -> Iterator[Object]:
    """One builder, and its volume if it has one."""
    volume = builder_volume(pool, index)
    if volume is not None:
        yield volume
    certificate = _bundle(observation, builder_ref(pool))
    yield builder_deployment(pool, index, image=image, certificate=certificate)


def has_builders(pool: Pool, observation: Observation) -> bool:
    """Whether any builder is there, or still drains."""
    return bool(observation.pods) or any(
        is_builder(obj) and is_owned(obj, pool) for obj in observation.live.values()
    )


def cache_is_awake(pool: Pool, observation: Observation) -> bool:
    """Whether the managed registry runs: as long as any builder is wanted or still drains."""
    scaling = pool.status.scaling
    size = pool.spec.builder_count if scaling is None else scaling.size
    return size > 0 or has_builders(pool, observation)


def _bundle(observation: Observation, ref: Ref) -> Bundle:
    bundle = bundle_at(observation, ref)
    assert bundle is not None  # noqa: S101 - asked for before
    return bundle


def _components(pool: Pool) -> Mapping[str, str]:
    return {
        naming.builder_certificate(pool.key): naming.COMPONENT_BUILDER,
        naming.cache(pool.key): naming.COMPONENT_CACHE,
        naming.cache_client(pool.key): naming.COMPONENT_CACHE,
    }
