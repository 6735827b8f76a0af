"""What a pool shall consist of: the names, the certificates, and the objects themselves.

Pure. What of it is to be done now, and in which order, is ``plan``'s to decide.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from buildpool import naming
from buildpool.api import Pool
from buildpool.certificates import (
    authority_at,
    authority_ref,
    bundle_at,
    certificate_requests,
    client_ref,
    noted_clients,
)
from buildpool.observation import Observation
from buildpool.pki import read
from buildpool.resources import (
    Object,
    Ref,
    authority_secret,
    builder_config,
    builder_deployment,
    builder_volume,
    cache_config,
    cache_deployment,
    cache_recipes,
    cache_service,
    cache_volume,
    certificate_secret,
    managed_registry,
    pool_service,
    recipes_config,
)


def wanted_refs(pool: Pool, *, home: str) -> tuple[Ref, ...]:
    """The names of all objects the pool shall consist of."""
    key = pool.key
    builders = range(pool.spec.builder_count)
    volumes = builders if pool.spec.builders.storage.volume_claim is not None else ()
    recipes = pool.spec.cache.registry is not None
    return (
        authority_ref(pool, home=home),
        *certificate_requests(pool),
        Ref("ConfigMap", key.namespace, naming.builder_config(key)),
        Ref("Service", key.namespace, naming.service(key)),
        *(
            Ref("PersistentVolumeClaim", key.namespace, naming.builder_volume(key, index))
            for index in volumes
        ),
        *(Ref("Deployment", key.namespace, naming.builder(key, index)) for index in builders),
        *([Ref("ConfigMap", key.namespace, naming.cache_recipes(key))] if recipes else []),
        *(_cache_refs(pool) if managed_registry(pool) else ()),
    )


def _cache_refs(pool: Pool) -> Iterator[Ref]:
    for kind in ("ConfigMap", "Service", "PersistentVolumeClaim", "Deployment"):
        yield Ref(kind, pool.key.namespace, naming.cache(pool.key))


def desired(pool: Pool, observation: Observation, *, home: str, image: str) -> Iterator[Object]:
    """Every object the pool consists of, in the order in which they need each other.

    Every certificate has to be there already. ``image`` is the operator's own.
    """
    key = pool.key
    authority = authority_at(pool, observation, home=home)
    assert authority is not None  # noqa: S101 - asked for before
    clients = {client.name for client in pool.spec.access.clients}
    # A client that is no longer wanted stays noted until its Secret is gone, too.
    leaving = {
        name
        for name in noted_clients(pool, observation.live, home=home)
        if client_ref(pool, name) in observation.live
    }
    yield authority_secret(pool, authority, namespace=home, clients=sorted(clients | leaving))
    served: dict[str, str] = {}
    for ref in certificate_requests(pool):
        bundle = bundle_at(observation, ref)
        assert bundle is not None  # noqa: S101 - asked for before
        served[ref.name] = read(bundle.pair).fingerprint
        component = _components(pool).get(ref.name, naming.COMPONENT_CLIENT)
        yield certificate_secret(pool, ref.name, bundle, component=component)
    yield builder_config(pool)
    yield pool_service(pool)
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
            certificate_fingerprint=served[naming.cache(key)],
            is_awake=cache_is_awake(pool, observation),
        )
    for index in range(pool.spec.builder_count):
        volume = builder_volume(pool, index)
        if volume is not None:
            yield volume
        yield builder_deployment(
            pool,
            index,
            image=image,
            certificate_fingerprint=served[naming.builder_certificate(key)],
        )


def cache_is_awake(pool: Pool, observation: Observation) -> bool:
    """Whether the managed registry runs: as long as any builder is wanted or still drains."""
    return pool.spec.builder_count > 0 or bool(observation.pods)


def _components(pool: Pool) -> Mapping[str, str]:
    return {
        naming.builder_certificate(pool.key): naming.COMPONENT_BUILDER,
        naming.cache(pool.key): naming.COMPONENT_CACHE,
        naming.cache_client(pool.key): naming.COMPONENT_CACHE,
    }
