"""How a pool's shared cache is, as the user is told.

Pure. That a cache cannot be used never keeps a builder from building: it is a condition of its own.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from buildpool.core import naming
from buildpool.core.api import (
    CacheStatus,
    Condition,
    ConditionStatus,
    ConditionType,
    Pool,
    Reason,
)
from buildpool.core.api.quantity import format_bytes
from buildpool.core.api.status import MAX_MESSAGE_CHARACTERS
from buildpool.core.objects.pods import is_ready
from buildpool.core.objects.refs import Ref
from buildpool.core.observed.usage import Usage
from buildpool.core.planning.caches import cache_target
from buildpool.core.planning.desired import cache_is_awake
from buildpool.core.planning.names import cache_parts, recipes_ref
from buildpool.core.planning.situation import Situation
from buildpool.core.reporting.conflicts import about_taken
from buildpool.core.reporting.diagnosis import diagnose
from buildpool.core.reporting.outcome import Outcome
from buildpool.core.resources import cache_recipes
from buildpool.core.words import Finding

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


def cache_condition(s: Situation, outcome: Outcome) -> Condition | None:
    """Whether the cache can be used, and why not; None where the pool has none."""
    pool, registry = s.pool, s.pool.spec.cache.registry
    taken = s.left_out or s.taken.intersection(cache_parts(pool))
    if taken:
        return _conflict(s, taken)
    if registry is None:
        return None
    if registry.managed is not None:
        trouble = _managed_trouble(s, outcome)
        if trouble is not None:
            return _condition(pool, ConditionStatus.FALSE, trouble)
    if recipes_ref(pool) in s.taken:
        return _conflict(s, (recipes_ref(pool),))
    target, report = cache_target(s), s.observation.cache
    if isinstance(target, Finding):
        return _condition(pool, ConditionStatus.FALSE, target)
    if report is None:
        before = pool.status.condition(ConditionType.CACHE_READY)
        if before is not None and before.reason in FROM_REPORT:
            return before
        message = "the cache registry has not been asked yet"
        return _condition(pool, ConditionStatus.UNKNOWN, Finding(Reason.CACHE_UNKNOWN, message))
    known = _trouble_of(report.usage) if report.usage else None
    is_full = known is not None and known.reason is Reason.CACHE_FULL
    # A full disk makes the registry fail in its own words, too.
    trouble = known if is_full else report.trouble or known
    if trouble is not None:
        return _condition(pool, ConditionStatus.FALSE, trouble)
    use = cache_recipes(pool)
    message = f"the builders share the cache in {use.registry if use else ''}"
    return _condition(pool, ConditionStatus.TRUE, Finding(Reason.CACHE_ANSWERS, message))


def _conflict(s: Situation, taken: Iterable[Ref]) -> Condition:
    """What is to be said of names that somebody else has."""
    message = f"{about_taken(s, taken)} All else of the pool goes on"
    return _condition(s.pool, ConditionStatus.FALSE, Finding(Reason.NAME_CONFLICT, message))


def cache_status(s: Situation) -> CacheStatus | None:
    """Where the cache is and how it is used; None where the pool has none."""
    recipes = cache_recipes(s.pool)
    if recipes is None:
        return None
    usage = s.observation.cache.usage if s.observation.cache else None
    before = s.pool.status.cache
    return CacheStatus(
        registry=recipes.registry,
        recipes=None if recipes_ref(s.pool) in s.taken else naming.cache_recipes(s.pool.key),
        buildctl=recipes.buildctl,
        buildx=recipes.buildx,
        used=_spelled(usage.used) if usage else before and before.used,
        refs=usage.refs if usage else before and before.refs,
    )


def _managed_trouble(s: Situation, outcome: Outcome) -> Finding[Reason] | None:
    """What keeps the managed registry from running."""
    name, namespace = naming.cache(s.pool.key), s.pool.key.namespace
    refused = [f for f in outcome.failures if f.ref.name == name and f.ref.kind != "Secret"]
    if refused:
        return Finding(refused[0].reason, str(refused[0]))
    if not cache_is_awake(s):
        message = "the cache registry is off while the pool has no builders; its content stays"
        return Finding(Reason.CACHE_RESTING, message)
    if any(is_ready(pod) for pod in s.observation.cache_pods):
        return None
    deployment = s.own.get(Ref("Deployment", namespace, name))
    finding = diagnose(deployment, s.observation.cache_pods)
    if finding is None:
        return Finding(Reason.CACHE_STARTING, "the cache registry is starting")
    if "unbound immediate PersistentVolumeClaims" in finding.message:
        # So it is for a moment with every new volume.
        return Finding(Reason.CACHE_STARTING, f"the cache waits for its volume: {finding.message}")
    reason = finding.reason
    if reason is Reason.BUILDER_CRASHING:
        reason = Reason.CACHE_CRASHING
    return Finding(reason, f"{name}: {finding.message}")


def _trouble_of(usage: Usage) -> Finding[Reason] | None:
    """What the keeper says that the user should know."""
    if usage.is_full:
        room = f"{_spelled(usage.used)} of {_spelled(usage.capacity)} are taken"
        return Finding(
            Reason.CACHE_FULL,
            f"the cache is full: {room}, and nothing more may be removed while builds may need it; "
            "raise cache.registry.managed.storage.size; builds go on without new caches",
        )
    if usage.is_failing:
        return Finding(
            Reason.CACHE_DAMAGED,
            "the volume of the cache fails: much of it cannot be read or has other content than it "
            "should; check the volume; builds go on without what is affected",
        )
    if usage.unhealed:
        return Finding(
            Reason.CACHE_DAMAGED,
            f"damaged content was removed from {', '.join(usage.unhealed)}; the next build that "
            "exports there writes it again; check the volume if it happens again",
        )
    return None


def _spelled(size: int) -> str:
    """Bytes for people: whole mebibytes, so that a status does not change with every byte."""
    mebi = 1 << 20
    return format_bytes(-(-size // mebi) * mebi)


def _condition(pool: Pool, status: ConditionStatus, what: Finding[Reason]) -> Condition:
    text = what.message[:1].upper() + what.message[1:]
    return Condition(
        type=ConditionType.CACHE_READY,
        status=status,
        reason=what.reason,
        message=f"{text}."[:MAX_MESSAGE_CHARACTERS],
        observed_generation=pool.generation,
    )
