"""Notices that a Secret of a pool was changed or deleted, without the right to watch Secrets.

To list or watch Secrets is to read all of them, and RBAC cannot narrow that to labels. So the
operator may only get Secrets by name (docs/adr/0009), and this looks at the known ones, one after
the other: each about once a second in a small installation, and never more than a set number per
second in a large one.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from typing import Final

from buildpool.controller.wakeups import Wakeups
from buildpool.core.errors import KubernetesError
from buildpool.core.naming import PoolKey
from buildpool.core.objects.refs import Ref
from buildpool.kube.cluster import Cluster

MIN_ROUND_SECONDS: Final = 1.0
"""Seconds a round takes at least, however few Secrets there are."""
log = logging.getLogger(__name__)


class SecretPoller:
    """Looks at the Secrets that pools depend on."""

    def __init__(self, cluster: Cluster, wakeups: Wakeups, *, reads_per_second: float) -> None:
        self._cluster = cluster
        self._wakeups = wakeups
        self._pause = 1 / reads_per_second
        self._seen: dict[PoolKey, Mapping[Ref, str | None]] = {}

    def watch(self, pool: PoolKey, versions: Mapping[Ref, str | None]) -> None:
        """From now on, wakes the pool when one of these is not in this version; None: absent."""
        self._seen[pool] = versions

    def forget(self, pool: PoolKey) -> None:
        """Looks no more for a pool that is gone."""
        self._seen.pop(pool, None)

    async def run(self) -> None:
        """Goes round for ever."""
        while True:
            round_ends = asyncio.get_running_loop().time() + MIN_ROUND_SECONDS
            for pool in tuple(self._seen):
                for ref in self._seen.get(pool, {}):
                    await self._look(pool, ref)
                    await asyncio.sleep(self._pause)
            await asyncio.sleep(max(0.0, round_ends - asyncio.get_running_loop().time()))

    async def _look(self, pool: PoolKey, ref: Ref) -> None:
        try:
            found = await self._cluster.get(ref)
            version = found["metadata"]["resourceVersion"] if found else None
        except KubernetesError as error:
            log.debug("%s could not be looked at: %s", ref, error)
            return
        except Exception:
            log.exception("%s could not be looked at; the others are.", ref)
            return
        versions = self._seen.get(pool, {})
        if ref in versions and versions[ref] != version:
            self._wakeups.wake(pool)
