"""The names of all that a pool consists of, but for its builders. Pure.

How many builders there are and with which numbers is decided in each pass.
"""

from __future__ import annotations

from collections.abc import Iterator

from buildpool.core import naming
from buildpool.core.api import Pool, Routing
from buildpool.core.naming import Installation
from buildpool.core.objects.refs import Ref
from buildpool.core.planning.certificates import authority_ref, certificate_requests, client_ref
from buildpool.core.resources import managed_registry


def desired_refs(pool: Pool, installation: Installation) -> tuple[Ref, ...]:
    """The names of all objects the pool shall consist of, but for its builders."""
    key = pool.key
    gateway = pool.spec.routing is Routing.GATEWAY
    recipes = pool.spec.cache.registry is not None
    return (
        authority_ref(pool, installation),
        *certificate_requests(pool, installation),
        Ref("ConfigMap", key.namespace, naming.builder_config(key)),
        *([Ref("NetworkPolicy", key.namespace, naming.builder_policy(key))] if gateway else []),
        Ref("Service", key.namespace, naming.service(key)),
        Ref("PodDisruptionBudget", key.namespace, naming.disruption_budget(key)),
        *([recipes_ref(pool)] if recipes else []),
        *(cache_parts(pool) if managed_registry(pool) else ()),
    )


def cache_parts(pool: Pool) -> Iterator[Ref]:
    """What a managed cache consists of, but for its Secrets."""
    for kind in ("ConfigMap", "Service", "PersistentVolumeClaim", "Deployment"):
        yield Ref(kind, pool.key.namespace, naming.cache(pool.key))


def optional_refs(pool: Pool) -> frozenset[Ref]:
    """Those that no builder needs: the pool does without one whose name is taken."""
    clients = (client_ref(pool, client.name) for client in pool.spec.access.clients)
    return frozenset((*clients, recipes_ref(pool), *cache_parts(pool)))


def recipes_ref(pool: Pool) -> Ref:
    """The ConfigMap with the flags for clients of the shared cache."""
    return Ref("ConfigMap", pool.key.namespace, naming.cache_recipes(pool.key))
