"""What a user can say about a pool, and what the operator answers: spec, status, reasons, CRD.

Pure. The models here are the one source of parser, CRD and reference, so these cannot disagree.
"""

from __future__ import annotations

from buildpool.core.api.builders import Architecture, Builders, Recycle, Rollout, Security, Storage
from buildpool.core.api.cache import CacheRegistry, Inject, ManagedRegistry
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
