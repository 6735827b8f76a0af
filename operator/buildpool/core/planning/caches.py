"""Whom to ask about a pool's shared cache, and with what. Pure."""

from __future__ import annotations

import base64
import binascii
from typing import Any

from buildpool.core import naming
from buildpool.core.api import (
    CacheRegistry,
    Layout,
    Pool,
    Reason,
    Routing,
)
from buildpool.core.api.spec import LOCATION_RULE
from buildpool.core.objects.pods import is_ready
from buildpool.core.objects.refs import Ref
from buildpool.core.observed.cache import CacheTarget, Credentials
from buildpool.core.observed.dockerconfig import parse_credentials
from buildpool.core.planning.certificates import cache_secrets
from buildpool.core.planning.situation import Situation
from buildpool.core.routing.sharing import FOLDER
from buildpool.core.words import Finding


def cache_target(s: Situation) -> CacheTarget | Finding[Reason] | None:
    """Whom to ask about the pool's cache; None where there is nobody to ask now."""
    registry = s.pool.spec.cache.registry
    if registry is None:
        return None
    if not LOCATION_RULE.holds(s.pool.spec):
        # It was stored before there was the rule: the gateway finds no names for its caches.
        return Finding(Reason.INVALID_SPEC, f"{LOCATION_RULE.message}; {LOCATION_RULE.remedy}")
    return _managed_target(s) if registry.managed is not None else _external_target(s, registry)


def cache_references(pool: Pool) -> frozenset[Ref]:
    """The user's Secrets and ConfigMaps that asking an external registry needs."""
    registry, namespace = pool.spec.cache.registry, pool.key.namespace
    if registry is None or registry.ref is None:
        return frozenset()
    host = registry.ref.partition("/")[0]
    bundles = (entry.ca_bundle for entry in pool.spec.registries if entry.host == host)
    needed = {Ref(each.kind, namespace, each.source.name) for each in bundles if each is not None}
    if registry.credentials is not None:
        needed.add(Ref("Secret", namespace, registry.credentials.name))
    return frozenset(needed)


def _managed_target(s: Situation) -> CacheTarget | None:
    bundle, key = s.bundles[cache_secrets(s.pool)[1]], s.pool.key
    if bundle is None or not any(is_ready(pod) for pod in s.observation.cache_pods):
        return None
    return CacheTarget(
        host=naming.cache_host(key),
        trust=bundle.trust,
        pair=bundle.pair,
        keeper=naming.cache_host(key, naming.KEEPER_PORT),
    )


def _external_target(s: Situation, registry: CacheRegistry) -> CacheTarget | Finding[Reason]:
    assert registry.ref is not None  # noqa: S101 - the model demands one of the two
    host, _, repository = registry.ref.partition("/")
    entry = next((entry for entry in s.pool.spec.registries if entry.host == host), None)
    trust: bytes | None = None
    if entry is not None and entry.ca_bundle is not None:
        kind, source = entry.ca_bundle.kind, entry.ca_bundle.source
        found = _value(s, kind, source.name, source.key)
        if isinstance(found, Finding):
            return found
        trust = found
    credentials: Credentials | None = None
    if registry.credentials is not None:
        key = ".dockerconfigjson"
        found = _value(s, "Secret", registry.credentials.name, key)
        if isinstance(found, Finding):
            return found
        where = f"Secret {registry.credentials.name}, key {key}"
        try:
            credentials = parse_credentials(found, host)
        except ValueError as error:
            return Finding(Reason.CREDENTIALS_REFUSED, f"{where}: {error}; correct it")
        if credentials is None:
            message = f"{where} has no entry for {host}; add one, as docker login does"
            return Finding(Reason.CREDENTIALS_REFUSED, message)
    return CacheTarget(
        host=host,
        repository=repository,
        below="" if registry.layout is Layout.TAGS else _below(s.pool),
        http=entry is not None and entry.http,
        trust=trust,
        credentials=credentials,
    )


def _below(pool: Pool) -> str:
    """Where caches will lie: those of the gateway in a folder of their own."""
    by_gateway = pool.spec.routing is Routing.GATEWAY
    return f"{FOLDER}/{naming.PREFLIGHT}" if by_gateway else naming.PREFLIGHT


def _value(s: Situation, kind: str, name: str, key: str) -> bytes | Finding[Reason]:
    """What the user's Secret or ConfigMap has under a key."""
    missing = Reason.SECRET_NOT_FOUND if kind == "Secret" else Reason.CONFIG_MAP_NOT_FOUND
    obj = s.observation.referred.get(Ref(kind, s.pool.key.namespace, name))
    if obj is None:
        return Finding(missing, f"{kind} {name} does not exist; create it")
    text: Any = (obj.get("data") or {}).get(key)
    if text is None:
        return Finding(missing, f"{kind} {name} has no key {key}; add it")
    if kind == "ConfigMap":
        return str(text).encode()
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error:
        return Finding(missing, f"{kind} {name} is garbled at {key}; write it again")
