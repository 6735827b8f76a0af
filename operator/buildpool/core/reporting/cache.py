"""How a pool's shared cache is: whom to ask about it, and what to tell the user.

Pure. That a cache cannot be used never keeps a builder from building: it is a condition of its own.
"""

from __future__ import annotations

import base64
import binascii
from typing import Any, Final

from buildpool.core import naming
from buildpool.core.api import (
    CacheRegistry,
    CacheStatus,
    Condition,
    ConditionStatus,
    ConditionType,
    Pool,
    Reason,
)
from buildpool.core.api.quantity import format_bytes
from buildpool.core.observed.cache import CacheTarget, Credentials, Trouble, Usage
from buildpool.core.observed.dockerconfig import parse_credentials
from buildpool.core.observed.observation import Observation
from buildpool.core.planning.certificates import bundle_at, cache_secrets
from buildpool.core.planning.desired import cache_is_awake
from buildpool.core.reporting.diagnosis import diagnose, is_ready
from buildpool.core.reporting.outcome import Outcome
from buildpool.core.resources import Ref, cache_recipes

MAX_MESSAGE: Final = 1024
FROM_REPORT: Final = frozenset(
    {
        Reason.CACHE_ANSWERS,
        Reason.CACHE_FULL,
        Reason.CACHE_DAMAGED,
        Reason.REGISTRY_NOT_FOUND,
        Reason.REGISTRY_UNREACHABLE,
        Reason.REGISTRY_NOT_TRUSTED,
        Reason.CREDENTIALS_REFUSED,
        Reason.NO_REGISTRY,
        Reason.WRITE_REFUSED,
    }
)
"""Reasons that rest on an answer of the registry. After a restart of the operator they hold until
it is asked again."""


def cache_target(pool: Pool, observation: Observation) -> CacheTarget | Trouble | None:
    """Whom to ask about the pool's cache; None where there is nobody to ask now."""
    registry = pool.spec.cache.registry
    if registry is None:
        return None
    if registry.managed is not None:
        return _managed_target(pool, observation)
    return _external_target(pool, registry, observation)


def cache_references(pool: Pool) -> frozenset[Ref]:
    """The user's Secrets that asking an external registry needs."""
    registry, namespace = pool.spec.cache.registry, pool.key.namespace
    if registry is None or registry.ref is None:
        return frozenset()
    host = registry.ref.partition("/")[0]
    bundles = (entry.ca_bundle for entry in pool.spec.registries if entry.host == host)
    sources = (bundle.secret for bundle in bundles if bundle is not None)
    names = {source.name for source in (registry.credentials, *sources) if source is not None}
    return frozenset(Ref("Secret", namespace, name) for name in names)


def cache_condition(pool: Pool, observation: Observation, outcome: Outcome) -> Condition | None:
    """Whether the cache can be used, and why not; None where the pool has none."""
    registry = pool.spec.cache.registry
    if registry is None:
        return None
    if registry.managed is not None:
        trouble = _managed_trouble(pool, observation, outcome)
        if trouble is not None:
            return _condition(pool, ConditionStatus.FALSE, trouble)
    target, report = cache_target(pool, observation), observation.cache
    if isinstance(target, Trouble):
        return _condition(pool, ConditionStatus.FALSE, target)
    if report is None:
        before = pool.status.condition(ConditionType.CACHE_READY)
        if before is not None and before.reason in FROM_REPORT:
            return before
        message = "the cache registry has not been asked yet"
        return _condition(pool, ConditionStatus.UNKNOWN, Trouble(Reason.CACHE_UNKNOWN, message))
    known = _trouble_of(report.usage) if report.usage else None
    is_full = known is not None and known.reason is Reason.CACHE_FULL
    # A full disk makes the registry fail in its own words, too.
    trouble = known if is_full else report.trouble or known
    if trouble is not None:
        return _condition(pool, ConditionStatus.FALSE, trouble)
    recipes = cache_recipes(pool)
    message = f"the builders share the cache in {recipes.registry if recipes else ''}"
    return _condition(pool, ConditionStatus.TRUE, Trouble(Reason.CACHE_ANSWERS, message))


def cache_status(pool: Pool, observation: Observation) -> CacheStatus | None:
    """Where the cache is and how it is used; None where the pool has none."""
    recipes = cache_recipes(pool)
    if recipes is None:
        return None
    usage = observation.cache.usage if observation.cache else None
    before = pool.status.cache
    return CacheStatus(
        registry=recipes.registry,
        recipes=naming.cache_recipes(pool.key),
        buildctl=recipes.buildctl,
        buildx=recipes.buildx,
        used=_spelled(usage.used) if usage else before and before.used,
        refs=usage.refs if usage else before and before.refs,
    )


def _managed_target(pool: Pool, observation: Observation) -> CacheTarget | None:
    bundle = bundle_at(observation, cache_secrets(pool)[1])
    if bundle is None or not any(is_ready(pod) for pod in observation.cache_pods):
        return None
    return CacheTarget(
        host=naming.cache_host(pool.key),
        trust=bundle.trust,
        pair=bundle.pair,
        keeper=naming.cache_host(pool.key, naming.KEEPER_PORT),
    )


def _external_target(
    pool: Pool, registry: CacheRegistry, observation: Observation
) -> CacheTarget | Trouble:
    assert registry.ref is not None  # noqa: S101 - the model demands one of the two
    host, _, repository = registry.ref.partition("/")
    entry = next((entry for entry in pool.spec.registries if entry.host == host), None)
    trust: bytes | None = None
    if entry is not None and entry.ca_bundle is not None:
        kind, source = entry.ca_bundle.kind, entry.ca_bundle.source
        found = _value(pool, observation, kind, source.name, source.key)
        if isinstance(found, Trouble):
            return found
        trust = found
    credentials: Credentials | None = None
    if registry.credentials is not None:
        key = ".dockerconfigjson"
        found = _value(pool, observation, "Secret", registry.credentials.name, key)
        if isinstance(found, Trouble):
            return found
        where = f"Secret {registry.credentials.name}, key {key}"
        try:
            credentials = parse_credentials(found, host)
        except ValueError as error:
            return Trouble(Reason.CREDENTIALS_REFUSED, f"{where}: {error}; correct it")
        if credentials is None:
            message = f"{where} has no entry for {host}; add one, as docker login does"
            return Trouble(Reason.CREDENTIALS_REFUSED, message)
    return CacheTarget(
        host=host,
        repository=repository,
        http=entry is not None and entry.http,
        trust=trust,
        credentials=credentials,
    )


def _value(pool: Pool, observation: Observation, kind: str, name: str, key: str) -> bytes | Trouble:
    """What the user's Secret or ConfigMap has under a key."""
    missing = Reason.SECRET_NOT_FOUND if kind == "Secret" else Reason.CONFIG_MAP_NOT_FOUND
    obj = observation.referred.get(Ref(kind, pool.key.namespace, name))
    if obj is None:
        return Trouble(missing, f"{kind} {name} does not exist; create it")
    text: Any = (obj.get("data") or {}).get(key)
    if text is None:
        return Trouble(missing, f"{kind} {name} has no key {key}; add it")
    if kind == "ConfigMap":
        return str(text).encode()
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error:
        return Trouble(missing, f"{kind} {name} is garbled at {key}; write it anew")


def _managed_trouble(pool: Pool, observation: Observation, outcome: Outcome) -> Trouble | None:
    """What keeps the managed registry from running."""
    name, namespace = naming.cache(pool.key), pool.key.namespace
    refused = [f for f in outcome.failures if f.ref.name == name and f.ref.kind != "Secret"]
    if refused:
        message = f"{refused[0].ref} was refused: {refused[0].message}"
        return Trouble(Reason.OBJECT_REFUSED, message)
    if not cache_is_awake(pool, observation):
        message = "the cache registry is off while the pool has no builders; its content stays"
        return Trouble(Reason.CACHE_RESTING, message)
    if any(is_ready(pod) for pod in observation.cache_pods):
        return None
    deployment = observation.live.get(Ref("Deployment", namespace, name))
    finding = diagnose(deployment, observation.cache_pods)
    if finding is None:
        return Trouble(Reason.CACHE_STARTING, "the cache registry is starting")
    if "unbound immediate PersistentVolumeClaims" in finding.message:
        # So it is for a moment with every new volume.
        return Trouble(Reason.CACHE_STARTING, f"the cache waits for its volume: {finding.message}")
    reason = finding.reason
    if reason is Reason.BUILDER_CRASHING:
        reason = Reason.CACHE_CRASHING
    return Trouble(reason, f"{name}: {finding.message}")


def _trouble_of(usage: Usage) -> Trouble | None:
    """What the keeper says that the user should know."""
    if usage.is_full:
        room = f"{_spelled(usage.used)} of {_spelled(usage.capacity)} are taken"
        return Trouble(
            Reason.CACHE_FULL,
            f"the cache is full: {room}, and nothing more may be removed while builds may need it; "
            "raise cache.registry.managed.storage.size; builds go on without new caches",
        )
    if usage.unhealed:
        return Trouble(
            Reason.CACHE_DAMAGED,
            f"damaged content was removed from {', '.join(usage.unhealed)}; the next build that "
            "exports there writes it anew; check the volume if it happens again",
        )
    return None


def _spelled(size: int) -> str:
    """Bytes for people: whole mebibytes, so that a status does not change with every byte."""
    mebi = 1 << 20
    return format_bytes(-(-size // mebi) * mebi)


def _condition(pool: Pool, status: ConditionStatus, what: Trouble) -> Condition:
    text = what.message[:1].upper() + what.message[1:]
    return Condition(
        type=ConditionType.CACHE_READY,
        status=status,
        reason=what.reason,
        message=f"{text}."[:MAX_MESSAGE],
        observed_generation=pool.generation,
    )
