"""Removes authorities, and what the gateway was given, whose pool is gone.

These lie in the operator's own namespace, out of reach of owner references. A pool's removal takes
them along; this finds those of pools that went while no operator was there to see it.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from buildpool.core import naming, pauses
from buildpool.core.errors import KubernetesError
from buildpool.core.objects.refs import Object, Ref, ref_of
from buildpool.kube.cluster import Cluster

INTERVAL: Final = 3600.0
"""Seconds between two sweeps."""
RETRY: Final = 60.0
"""Seconds from a sweep that failed to the next one; doubled while they fail, up to ``INTERVAL``."""
log = logging.getLogger(__name__)


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

    def ask(self) -> None:
        """Has the next sweep done soon."""
        self._asked.set()

    async def run(self) -> None:
        """Goes on for ever."""
        failures = 0
        while True:
            self._asked.clear()
            try:
                await self.sweep()
                failures = 0
            except Exception as error:  # noqa: BLE001 - whatever it is, the next sweep comes
                failures += 1
                _log("The sweep for authorities without a pool has failed", error)
            pause = pauses.growing(failures, first=RETRY, last=INTERVAL) if failures else INTERVAL
            with suppress(TimeoutError):
                async with asyncio.timeout(pauses.spread(pause, chance=self._chance())):
                    await self._asked.wait()

    async def sweep(self) -> None:
        """Removes every such Secret whose pool does not exist, or is another of the same name."""
        for component in (naming.COMPONENT_GATEWAY, naming.COMPONENT_AUTHORITY):
            await self._sweep(component)

    async def _sweep(self, component: str) -> None:
        selector = naming.home_selector(component)
        for secret in await self._cluster.select("Secret", self._home, selector):
            try:
                await self._judge(secret)
            except Exception as error:  # noqa: BLE001 - the others have nothing to do with it
                _log("A Secret without a pool, perhaps, could not be looked at", error)

    async def _judge(self, secret: Object) -> None:
        """Removes one Secret, if its pool is gone."""
        metadata = secret["metadata"]
        key = naming.pool_of(metadata.get("labels"))
        if key is None:
            return  # it does not say whose it is, so nobody's pool is gone
        if self._namespaces and key.namespace not in self._namespaces:
            return  # another operator's, perhaps; this one may not even look
        pool = await self._cluster.get(Ref(naming.KIND, key.namespace, key.name))
        owner = (metadata.get("annotations") or {}).get(naming.ANNOTATION_POOL_UID)
        if pool is None or pool["metadata"]["uid"] != owner:
            log.info("Removing %s: its pool is gone.", ref_of(secret))
            await self._cluster.delete(ref_of(secret), uid=metadata["uid"])


def _log(what: str, error: Exception) -> None:
    is_known = isinstance(error, KubernetesError)
    told = f"{type(error).__name__}: {error}"
    log.warning("%s: %s", what, told, exc_info=None if is_known else error)
