"""Removes what pools have made that are gone.

What builds need has no owner, so no garbage collector reaches it. A pool's removal takes it along;
this finds what is left of pools whose finalizer somebody took off, or what a backup has brought
back without them, or beside others of their names. First their builders, which drain; what builds
need never before these are gone.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Final, NamedTuple

from buildpool.controller.observe import LISTED
from buildpool.core import naming, pauses
from buildpool.core.api.pool import parse_pool
from buildpool.core.errors import InvalidSpecError, KubernetesError
from buildpool.core.naming import PoolKey
from buildpool.core.objects.pods import has_ended
from buildpool.core.objects.refs import (
    Object,
    Ref,
    component_of,
    is_of_pool,
    maker_of,
    mapping_at,
    namespace_of_pool,
    pool_ref,
    ref_of,
    text_at,
)
from buildpool.core.planning.certificates import noted_clients
from buildpool.core.planning.removal import goes_first
from buildpool.kube.cluster import Cluster

INTERVAL_SECONDS: Final = 3600.0
"""Seconds between two sweeps."""
RETRY_SECONDS: Final = 60.0
"""Seconds from a sweep that failed to the next one; doubled while they fail, up to
``INTERVAL_SECONDS``.

And at least so long from one that was asked for to the next such one.
"""
log = logging.getLogger(__name__)


class Rest(NamedTuple):
    """What a sweep had to leave for the next one."""

    waits: bool
    """Something waits for builds."""
    failed: bool
    """Something could not be looked at."""


class OrphanSweeper:
    """Sweeps at start, every hour, and when asked to."""

    def __init__(
        self,
        cluster: Cluster,
        *,
        home: str,
        namespaces: tuple[str, ...],
        chance: Callable[[], float] = random.random,
    ) -> None:
        """``namespaces`` are those whose pools are tended; empty: all."""
        self._chance = chance
        self._cluster = cluster
        self._home = home
        self._namespaces = namespaces
        self._asked = asyncio.Event()
        self._pools: set[PoolKey] = set()
        """Those about which it was asked since the last sweep."""
        self._heeded: dict[PoolKey, float] = {}
        """When it was last asked about a pool, and did so; for a minute."""

    def ask(self, pool: PoolKey) -> None:
        """Has a sweep done now that looks at what has this pool's name; once a minute at most.

        Where such a thing stays, each pass over the pool asks.
        """
        now = asyncio.get_running_loop().time()
        self._heeded = {
            key: when for key, when in self._heeded.items() if now < when + RETRY_SECONDS
        }
        if pool not in self._heeded:
            self._heeded[pool] = now
            self._pools.add(pool)
            self._asked.set()

    async def run(self) -> None:
        """Goes on for ever."""
        failures = 0
        while True:
            self._asked.clear()
            rest = await self.sweep()
            failures = failures + 1 if rest.failed else 0
            pause = (
                pauses.growing(failures, first=RETRY_SECONDS, last=INTERVAL_SECONDS)
                if failures
                else INTERVAL_SECONDS
            )
            pause = RETRY_SECONDS if rest.waits else pause
            with suppress(TimeoutError):
                async with asyncio.timeout(pauses.spread(pause, chance=self._chance())):
                    await self._asked.wait()

    async def sweep(self) -> Rest:
        """Removes all whose pool does not exist, or is another of the same name."""
        asked, self._pools = self._pools, set()
        found: dict[PoolKey, list[Object]] = {pool: [] for pool in asked}
        waits = failed = False
        for kind, namespace, labels in self._searches():
            try:
                objects = await self._cluster.select(kind, namespace, labels)
            except Exception as error:  # noqa: BLE001 - a namespace is gone, and our rights with it
                failed = True
                where = namespace or "all namespaces"
                _log(f"What pools have left of kind {kind} in {where} could not be listed", error)
                continue
            for obj in objects:
                key = _pool_of(obj, kind)
                # Another operator's, perhaps; this one may not even look.
                if key is not None and (not self._namespaces or key.namespace in self._namespaces):
                    found.setdefault(key, []).append(obj)
        for key, objects in found.items():
            try:
                waits |= await self._judge(key, objects, by_name=key in asked)
            except Exception as error:  # noqa: BLE001 - the others have nothing to do with it
                failed = True
                _log(f"What pool {key} has left, perhaps, could not be looked at", error)
        return Rest(waits, failed)

    def _searches(self) -> Iterator[tuple[str, str, dict[str, str]]]:
        """What pools have made and may be listed: its kind, its namespace, its labels."""
        for namespace in self._namespaces or ("",):
            for kind in LISTED:
                yield kind, namespace, naming.MADE
        for component in (naming.COMPONENT_GATEWAY, naming.COMPONENT_AUTHORITY):
            yield "Secret", self._home, naming.home_selector(component)

    async def _judge(self, key: PoolKey, objects: list[Object], *, by_name: bool) -> bool:
        """Removes what is not this pool's, if no build may need it; whether it has to wait."""
        pool = await self._cluster.get(pool_ref(key))
        uid = _uid_of(pool)
        orphans = [obj for obj in objects if self._is_orphan(obj, uid)]
        if orphans or by_name:
            # The authority is the last to go: it says which clients' Secrets to look for.
            authority = Ref("Secret", self._home, naming.authority(key))
            names = await self._secrets(key, pool, authority)
            found = [await self._cluster.get(ref) for ref in names]
            # Two pools can have Secrets of one name: that of a client, and that of builders.
            secrets = [s for s in found if s is not None and is_of_pool(s, key)]
            orphans = [
                *(s for s in secrets if self._is_orphan(s, uid)),
                *sorted(orphans, key=lambda obj: ref_of(obj) == authority),
            ]
        # Its builders are told to go, as when a pool is deleted, and drain by themselves.
        first = [obj for obj in orphans if goes_first(obj)]
        rest = [obj for obj in orphans if obj not in first]
        if not await self._removed(key, uid, first):
            return True
        if rest and await self._may_build(key, pool):
            log.info("What an earlier pool %s has left waits for its builders.", key)
            return True
        return not await self._removed(key, uid, rest)

    async def _removed(self, key: PoolKey, uid: str | None, orphans: list[Object]) -> bool:
        """Removes these; False where the pool of this name is not the one with this uid any more.

        ``uid`` is None where there was no such pool.
        """
        for obj in orphans:
            if _uid_of(await self._cluster.get(pool_ref(key))) != uid:
                log.info("Pool %s has changed; what an earlier one has left waits.", key)
                return False
            log.info("Removing %s: its pool is gone.", ref_of(obj))
            await self._cluster.delete(ref_of(obj), uid=obj["metadata"]["uid"])
        return True

    async def _secrets(self, key: PoolKey, pool: Object | None, authority: Ref) -> list[Ref]:
        """The Secrets a pool may have in its own namespace, where they may not be listed."""
        noted = noted_clients(await self._cluster.get(authority))
        # An authority may have been brought back, and removed, before the others were.
        clients = sorted({*noted, *_clients_of(pool)})
        names = (
            naming.builder_certificate(key),
            naming.cache(key),
            naming.cache_client(key),
            *(naming.client_certificate(key, client) for client in clients),
        )
        return [Ref("Secret", key.namespace, name) for name in names]

    def _is_orphan(self, obj: Object, uid: str | None) -> bool:
        """Whether it was made by a pool of this name, and not by the one with this uid."""
        is_at_home, maker = self._is_at_home(obj), maker_of(obj)
        if not is_at_home and _is_copy(obj):
            return False
        if not maker:
            # Its labels say enough at home, unless a pool is there: that one reports a conflict.
            return is_at_home and uid is None
        return maker != uid

    def _is_at_home(self, obj: Object) -> bool:
        """Whether it is what pools have in the operator's own namespace."""
        return ref_of(obj).namespace == self._home and component_of(obj) in _AT_HOME

    async def _may_build(self, key: PoolKey, pool: Object | None) -> bool:
        """Whether a builder still runs that is not of this pool: it is older."""
        selector = naming.builder_selector(key)
        since = text_at(pool, "metadata", "creationTimestamp")
        return any(
            not has_ended(pod) and (pool is None or _created(pod) < since)
            for pod in await self._cluster.select("Pod", key.namespace, selector)
        )


_AT_HOME: Final = (naming.COMPONENT_AUTHORITY, naming.COMPONENT_GATEWAY)


def _pool_of(obj: Object, kind: str) -> PoolKey | None:
    """The pool of whose name an object is that was listed; at home are Secrets only."""
    labels = mapping_at(obj, "metadata", "labels")
    if kind == "Secret":
        return naming.pool_of(labels)
    where, name = text_at(obj, "metadata", "namespace"), text_at(labels, naming.LABEL_POOL)
    return PoolKey(where, name) if where and name else None


def _is_copy(obj: Object) -> bool:
    """Whether somebody has made it of an object of a pool in another namespace: it is theirs."""
    return namespace_of_pool(obj) not in ("", ref_of(obj).namespace)


def _clients_of(pool: Object | None) -> Iterator[str]:
    """The clients that a pool wants; none where its spec is refused, and so not carried out."""
    with suppress(InvalidSpecError):
        yield from (client.name for client in parse_pool(pool).spec.access.clients) if pool else ()


def _uid_of(pool: Object | None) -> str | None:
    return None if pool is None else pool["metadata"]["uid"]


def _created(obj: Object) -> str:
    return text_at(obj, "metadata", "creationTimestamp")


def _log(what: str, error: Exception) -> None:
    is_known = isinstance(error, KubernetesError)
    told = f"{type(error).__name__}: {error}"
    log.warning("%s: %s", what, told, exc_info=None if is_known else error)
