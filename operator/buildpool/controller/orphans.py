"""Removes authorities, and what the gateway was given, whose pool is gone.

These lie in the operator's own namespace, out of reach of owner references. A pool's removal takes
them along; this finds those of pools that went while no operator was there to see it.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Final

from buildpool.core import naming
from buildpool.core.errors import KubernetesError
from buildpool.core.naming import PoolKey
from buildpool.core.objects.refs import Ref, ref_of
from buildpool.kube.cluster import Cluster

INTERVAL: Final = 3600.0
"""Seconds between two sweeps."""
log = logging.getLogger(__name__)


class OrphanSweeper:
    """Sweeps at start, every hour, and when asked to."""

    def __init__(self, cluster: Cluster, *, home: str, namespaces: tuple[str, ...]) -> None:
        self._cluster = cluster
        self._home = home
        self._namespaces = namespaces
        self._asked = asyncio.Event()

    def ask(self) -> None:
        """Has the next sweep done soon."""
        self._asked.set()

    async def run(self) -> None:
        """Goes on for ever."""
        while True:
            self._asked.clear()
            try:
                await self.sweep()
            except KubernetesError as error:
                log.warning("The sweep for authorities without a pool has failed: %s", error)
            try:
                async with asyncio.timeout(INTERVAL):
                    await self._asked.wait()
            except TimeoutError:
                continue

    async def sweep(self) -> None:
        """Removes every such Secret whose pool does not exist, or is another of the same name."""
        for component in (naming.COMPONENT_GATEWAY, naming.COMPONENT_AUTHORITY):
            await self._sweep(component)

    async def _sweep(self, component: str) -> None:
        labels = {"app.kubernetes.io/component": component}
        for secret in await self._cluster.select("Secret", self._home, labels):
            metadata = secret["metadata"]
            key = PoolKey(
                metadata["labels"][naming.LABEL_POOL_NAMESPACE],
                metadata["labels"][naming.LABEL_POOL],
            )
            if self._namespaces and key.namespace not in self._namespaces:
                continue  # another operator's, perhaps; this one may not even look
            pool = await self._cluster.get(Ref(naming.KIND, key.namespace, key.name))
            owner = (metadata.get("annotations") or {}).get(naming.ANNOTATION_POOL_UID)
            if pool is None or pool["metadata"]["uid"] != owner:
                log.info("Removing %s: its pool is gone.", ref_of(secret))
                await self._cluster.delete(ref_of(secret), uid=metadata["uid"])
