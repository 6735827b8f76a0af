"""What a pool shall consist of: the names, the certificates, and the objects themselves.

Pure. What of it is to be done now, and in which order, is ``plan``'s to decide.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import timedelta
from typing import Final

from buildpool import naming
from buildpool.api import Pool
from buildpool.observation import Observation
from buildpool.pki import Bundle, CertificateRequest, KeyPair, Use, read
from buildpool.resources import (
    Object,
    Ref,
    authority_secret,
    builder_config,
    builder_deployment,
    builder_volume,
    bundle_of,
    cache_config,
    cache_deployment,
    cache_recipes,
    cache_service,
    cache_volume,
    certificate_secret,
    managed_registry,
    pair_of,
    pool_service,
    recipes_config,
)

AUTHORITY_LIFETIME: Final = timedelta(days=3650)
_LOOPBACK: Final = ("127.0.0.1", "::1")


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


def cache_secrets(pool: Pool) -> tuple[Ref, Ref]:
    """The Secrets of a managed cache: the registry's own, and the one its builders show it."""
    key = pool.key
    names = naming.cache(key), naming.cache_client(key)
    return Ref("Secret", key.namespace, names[0]), Ref("Secret", key.namespace, names[1])


def authority_ref(pool: Pool, *, home: str) -> Ref:
    """The Secret with the pool's authority."""
    return Ref("Secret", home, naming.authority(pool.key))


def client_ref(pool: Pool, name: str) -> Ref:
    """The Secret of one client."""
    return Ref("Secret", pool.key.namespace, naming.client_certificate(pool.key, name))


def certificate_requests(pool: Pool) -> Mapping[Ref, CertificateRequest]:
    """The certificates a pool consists of, by their Secrets."""
    key, lifetime = pool.key, pool.spec.access.certificate_duration
    requests = {
        Ref("Secret", key.namespace, naming.builder_certificate(key)): CertificateRequest(
            use=Use.SERVER,
            common_name=f"{key} builder",
            dns_names=naming.server_names(naming.service(key), key.namespace),
            ip_addresses=_LOOPBACK,
            lifetime=lifetime,
        )
    }
    if managed_registry(pool) is not None:
        registry, builders = cache_secrets(pool)
        requests[registry] = CertificateRequest(
            use=Use.SERVER,
            common_name=f"{key} cache",
            dns_names=naming.server_names(naming.cache(key), key.namespace),
            ip_addresses=_LOOPBACK,
            lifetime=lifetime,
        )
        requests[builders] = CertificateRequest(
            use=Use.CLIENT,
            common_name=f"{key} builder",
            uris=(naming.builder_identity(key),),
            lifetime=lifetime,
        )
    for client in pool.spec.access.clients:
        requests[client_ref(pool, client.name)] = CertificateRequest(
            use=Use.CLIENT,
            common_name=f"{key} {client.name}",
            uris=(naming.client_identity(key, client.name),),
            lifetime=lifetime,
        )
    return requests


def noted_clients(pool: Pool, live: Mapping[Ref, Object], *, home: str) -> tuple[str, ...]:
    """The clients that may have a Secret, as noted beside the authority."""
    secret = live.get(authority_ref(pool, home=home))
    annotations = ((secret or {}).get("metadata") or {}).get("annotations") or {}
    return tuple(filter(None, annotations.get(naming.ANNOTATION_CLIENTS, "").split(",")))


def bundle_at(observation: Observation, ref: Ref) -> Bundle | None:
    """The bundle in a Secret, or the one issued for it in this very pass."""
    issued = observation.issued.get(ref)
    return issued if isinstance(issued, Bundle) else bundle_of(observation.live.get(ref))


def authority_at(pool: Pool, observation: Observation, *, home: str) -> KeyPair | None:
    """The pool's authority, or the one issued for it in this very pass."""
    ref = authority_ref(pool, home=home)
    issued = observation.issued.get(ref)
    return issued if isinstance(issued, KeyPair) else pair_of(observation.live.get(ref))


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
