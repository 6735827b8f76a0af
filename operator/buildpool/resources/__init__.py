"""From a pool to the objects it consists of: one module per kind, plain dicts out.

Every function returns a complete, unshared object with its labels and owner reference already
inside; nobody changes it afterwards. Pure: nothing here talks to a cluster, and nothing here
decides *whether* an object is written (``plan`` does).
"""

from buildpool.resources.config import builder_config, daemon_toml
from buildpool.resources.deployment import builder_deployment
from buildpool.resources.drift import first_difference
from buildpool.resources.objects import JSON, Object, Ref, is_owned, is_terminating, ref_of
from buildpool.resources.secret import authority_secret, bundle_of, certificate_secret, pair_of
from buildpool.resources.service import pool_service
from buildpool.resources.volume import builder_volume

__all__ = [
    "JSON",
    "Object",
    "Ref",
    "authority_secret",
    "builder_config",
    "builder_deployment",
    "builder_volume",
    "bundle_of",
    "certificate_secret",
    "daemon_toml",
    "first_difference",
    "is_owned",
    "is_terminating",
    "pair_of",
    "pool_service",
    "ref_of",
]
