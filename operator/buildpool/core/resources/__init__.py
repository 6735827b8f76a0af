"""From a pool to the objects it consists of: one module per kind, plain dicts out.

Every function returns a complete, unshared object with its labels and owner reference already
inside; nobody changes it afterwards. Pure: nothing here talks to a cluster, and nothing here
decides *whether* an object is written (``plan`` does).
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
