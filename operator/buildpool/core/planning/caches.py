"""Whom to ask about a pool's shared cache, and with what. Pure."""

from __future__ import annotations

import base64
import binascii
from typing import Any

from buildpool.core import naming
from buildpool.core.api import (
    CacheRegistry,
    Pool,
    Reason,
)
from buildpool.core.objects.pods import is_ready
from buildpool.core.objects.refs import Ref
from buildpool.core.observed.cache import CacheTarget, Credentials, Trouble
from buildpool.core.observed.dockerconfig import parse_credentials
from buildpool.core.observed.observation import Observation
from buildpool.core.planning.certificates import bundle_at, cache_secrets


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
