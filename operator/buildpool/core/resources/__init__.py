"""From a pool to the objects it consists of: one module per kind, plain dicts out. Pure.

Every function returns a complete, unshared object with its labels and owner reference already
inside; nobody changes it afterwards. Nothing here decides *whether* an object is written.

    deployment  one builder
    scripts     the shell scripts in builders' pods
    config      buildkitd.toml
    tracing     what makes builders send the spans of builds to a collector
    guard       the guard beside each builder of a pool with a managed cache
    volume      the volume of a builder
    service     what leads clients to builders
    policy      who may reach builders
    disruption  which builders may be evicted
    secret      certificates and authorities
    gateway     what the gateway is given
    cache       the managed cache
    recipes     the flags for clients of a cache
    common      what all objects share
"""

from buildpool.core.resources.cache import (
    cache_config,
    cache_deployment,
    cache_revision,
    cache_service,
    cache_volume,
    managed_registry,
)
from buildpool.core.resources.config import builder_config, daemon_toml
from buildpool.core.resources.deployment import builder_deployment, builder_revision
from buildpool.core.resources.disruption import disruption_budget
from buildpool.core.resources.gateway import brief_of, gateway_secret, upstream_secret
from buildpool.core.resources.guard import has_guard
from buildpool.core.resources.policy import builder_policy
from buildpool.core.resources.recipes import Recipes, cache_recipes, recipes_config
from buildpool.core.resources.secret import authority_secret, bundle_of, certificate_secret, pair_of
from buildpool.core.resources.service import pool_service
from buildpool.core.resources.volume import builder_volume

__all__ = [
    "Recipes",
    "authority_secret",
    "brief_of",
    "builder_config",
    "builder_deployment",
    "builder_policy",
    "builder_revision",
    "builder_volume",
    "bundle_of",
    "cache_config",
    "cache_deployment",
    "cache_recipes",
    "cache_revision",
    "cache_service",
    "cache_volume",
    "certificate_secret",
    "daemon_toml",
    "disruption_budget",
    "gateway_secret",
    "has_guard",
    "managed_registry",
    "pair_of",
    "pool_service",
    "recipes_config",
    "upstream_secret",
]
