"""What a user can say about a pool, and what is answered: spec, status, reasons, CRD. Pure.

The models are the one source of parser, CRD and reference, so these cannot disagree.

    pool           a BuildKitPool, from raw JSON to typed values
    spec           ``spec``, with builders, cache and podfields
    builders       ``spec.builders``
    tracing        ``spec.builders.tracing``
    cache          ``spec.cache``
    podfields      fields as a pod has them
    status         ``status``
    asked          annotations by which users ask for something for a while
    cancellation   the one by which they end builds
    warmth         the one by which users ask for builders ahead of builds
    reasons        the words of conditions and Events
    events         Events, as values
    brief          what the operator tells the gateway about a pool
    validation     what is wrong with a spec
    daemon_config  the keys of buildkitd.toml
    model          what all models share; rules for both sides
    fields         types of fields, with their limits
    duration       spans of time as users write them
    quantity       amounts as Kubernetes writes them
    crd            the definition, made from the models
    reference      the page of the reference, made from the models
"""

from __future__ import annotations

from buildpool.core.api.builders import Architecture, Builders, Recycle, Rollout, Security, Storage
from buildpool.core.api.cache import CacheRegistry, Inject, Layout, ManagedRegistry
from buildpool.core.api.podfields import Resources
from buildpool.core.api.pool import Pool, identify_pool, parse_pool
from buildpool.core.api.reasons import ConditionType, EventReason, Reason, RetireReason, SizeReason
from buildpool.core.api.spec import (
    Access,
    AffinityKey,
    CaBundle,
    Client,
    Gateway,
    PoolSpec,
    Registry,
    Routing,
    Scaling,
)
from buildpool.core.api.status import (
    AuthorityStatus,
    BuilderState,
    BuilderStatus,
    CacheStatus,
    ClientStatus,
    Condition,
    ConditionStatus,
    PoolStatus,
    ScalingStatus,
    set_condition,
)

__all__ = [
    "Access",
    "AffinityKey",
    "Architecture",
    "AuthorityStatus",
    "BuilderState",
    "BuilderStatus",
    "Builders",
    "CaBundle",
    "CacheRegistry",
    "CacheStatus",
    "Client",
    "ClientStatus",
    "Condition",
    "ConditionStatus",
    "ConditionType",
    "EventReason",
    "Gateway",
    "Inject",
    "Layout",
    "ManagedRegistry",
    "Pool",
    "PoolSpec",
    "PoolStatus",
    "Reason",
    "Recycle",
    "Registry",
    "Resources",
    "RetireReason",
    "Rollout",
    "Routing",
    "Scaling",
    "ScalingStatus",
    "Security",
    "SizeReason",
    "Storage",
    "identify_pool",
    "parse_pool",
    "set_condition",
]
