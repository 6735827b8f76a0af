"""What a pool shall consist of: the names, the certificates, and the objects themselves.

Pure. What of it is to be done now, and in which order, is ``plan``'s to decide.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from buildpool.core import naming
from buildpool.core.api import Pool, Routing
from buildpool.core.api.brief import acknowledgement
from buildpool.core.api.cancellation import cancellation_in
from buildpool.core.objects.refs import Object, Ref, ref_of, text_at
from buildpool.core.pki import Bundle
from buildpool.core.planning.certificates import (
    authority_ref,
    builder_ref,
    cache_secrets,
    client_ref,
    clients_with_secrets,
    gateway_secrets,
)
from buildpool.core.planning.issuances import rotation_note
from buildpool.core.planning.names import cache_parts, recipes_ref
from buildpool.core.planning.situation import Situation
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


def desired_objects(s: Situation, size: int) -> Iterator[Object]:
    """Every object the pool consists of but its builders, in the order in which they are needed.

    Every certificate has to be there already. ``size`` is how many builders there shall be.
    """
    pool, namespace = s.pool, s.installation.namespace
    assert s.authority is not None  # noqa: S101 - issued before
    clients = {client.name for client in pool.spec.access.clients}
    # A client that is no longer wanted stays noted until its Secret is gone, too.
    noted = clients_with_secrets(pool, s.own.get(authority_ref(pool, s.installation)))
    leaving = {name for name in noted if client_ref(pool, name) in s.observation.live}
    everyone = sorted(clients | leaving)
    note = rotation_note(s)
    yield authority_secret(
        pool,
        s.authority,
        namespace=namespace,
        clients=everyone,
        rotated=None if note is None else str(note),
    )
    gateways = gateway_secrets(pool, s.installation)
    for ref in s.requests:
        if ref not in gateways and ref not in s.taken:
            component = _components(pool).get(ref.name, naming.COMPONENT_CLIENT)
            yield certificate_secret(pool, ref.name, _bundle(s, ref), component=component)
    if pool.spec.routing is Routing.GATEWAY:
        server, upstream = gateways
        asked = pool.annotations.get(naming.ANNOTATION_CANCEL, "")
        cancel = asked if cancellation_in(asked, s.now) else ""
        shown = _bundle(s, server)
        yield gateway_secret(pool, shown, installation=s.installation, cancel=cancel)
        yield upstream_secret(pool, _bundle(s, upstream), namespace=namespace)
    yield builder_config(pool)
    yield from _ways(s)
    yield disruption_budget(pool)
    if (recipes := cache_recipes(pool)) and recipes_ref(pool) not in s.taken:
        yield recipes_config(pool, recipes)
    if managed := managed_registry(pool):
        parts = (cache_config(pool), cache_service(pool), cache_volume(pool, managed))
        yield from (part for part in parts if ref_of(part) not in s.taken)
        # Its keeper removes what it finds: it must never begin in the volume of somebody else.
        if not any(ref in s.taken and ref.kind != "Service" for ref in cache_parts(pool)):
            yield cache_deployment(
                pool,
                managed,
                image=s.installation.image,
                certificate=_bundle(s, cache_secrets(pool)[0]),
                is_awake=size > 0 or s.has_builders,
            )


def _ways(s: Situation) -> Iterator[Object]:
    """What leads clients to builders, and what closes every other way.

    Where the gateway is to lead them and none is installed, no Service could: one of that name has
    no address to give. What is there stays, and nobody is kept from the way that there was.
    """
    pool, installation = s.pool, s.installation
    is_missing = pool.spec.routing is Routing.GATEWAY and not installation.gateway
    there = s.own.get(Ref("Service", pool.key.namespace, naming.service(pool.key)))
    leads_past = there is not None and text_at(there, "spec", "type") != "ExternalName"
    policy = builder_policy(pool, installed_in=installation.namespace)
    if policy and not (is_missing and leads_past):
        yield policy
    if not is_missing:
        yield pool_service(pool, gateway=installation.gateway_host)


def desired_builder(s: Situation, index: int) -> Iterator[Object]:
    """One builder, and its volume if it has one."""
    volume = builder_volume(s.pool, index)
    if volume is not None:
        yield volume
    certificate = _bundle(s, builder_ref(s.pool))
    image = s.installation.image
    yield builder_deployment(
        s.pool, index, image=image, certificate=certificate, revision=s.revision
    )


def wanted_acknowledgement(s: Situation) -> str | None:
    """What a pod of the gateway says once it serves the pool as it shall be; None before it can."""
    server, upstream = (s.bundles.get(ref) for ref in gateway_secrets(s.pool, s.installation))
    if server is None or upstream is None:
        return None
    return acknowledgement(
        gateway_secret(s.pool, server, installation=s.installation),
        upstream_secret(s.pool, upstream, namespace=s.installation.namespace),
    )


def cache_is_awake(s: Situation) -> bool:
    """Whether the managed registry runs: as long as any builder is wanted or still drains."""
    scaling = s.pool.status.scaling
    size = s.pool.spec.builder_count if scaling is None else scaling.size
    return size > 0 or s.has_builders


def _bundle(s: Situation, ref: Ref) -> Bundle:
    bundle = s.bundles[ref]
    assert bundle is not None  # noqa: S101 - issued before
    return bundle


def _components(pool: Pool) -> Mapping[str, str]:
    return {
        naming.builder_certificate(pool.key): naming.COMPONENT_BUILDER,
        naming.cache(pool.key): naming.COMPONENT_CACHE,
        naming.cache_client(pool.key): naming.COMPONENT_CACHE,
    }
