"""Tells the operator, in the pools' status, what waits here: so a pool grows, or wakes.

Each pod of the gateway has an entry of its own, by server-side apply: present while builds wait, or
where the pool is not served, absent otherwise, so that an idle pool costs no write. The operator
ignores the entries of pods that are gone; a router that starts again takes away what it left.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from datetime import datetime, timedelta
from typing import Final

from buildpool.core import naming
from buildpool.core.api.status import GatewayStatus
from buildpool.core.errors import KubernetesError, NotFoundError
from buildpool.core.naming import PoolKey
from buildpool.kube.cluster import Cluster

GATHER: Final = 0.02
"""Seconds in which changes are gathered before they are told. Few: what has got its slot and still
stands as waiting would count twice."""
SPACING: Final = 0.2
"""Seconds between two writes for one pool: who connects and leaves, again and again, costs the API
server no more."""
PAUSE: Final = 2.0
"""Seconds until what could not be told is told again."""
SLOW: Final = timedelta(seconds=20)
"""How often it is told that a queue moves, where as many wait as before."""
log: Final = logging.getLogger(__name__)


class StatusWriter:
    """What was told, and what is to be told. For one event loop."""

    def __init__(
        self,
        cluster: Cluster,
        nothing: GatewayStatus,
        entry: Callable[[PoolKey], GatewayStatus],
        *,
        clock: Callable[[], datetime],
    ) -> None:
        """``entry`` is what is to be told of a pool; ``nothing`` the entry that says nothing."""
        self._cluster = cluster
        self._nothing = nothing
        self._entry = entry
        self._clock = clock
        self._told: dict[PoolKey, tuple[GatewayStatus, datetime]] = {}
        self._changed: set[PoolKey] = set()
        self._resting: set[PoolKey] = set()
        """Pools for which something was written a moment ago."""
        self._wake = asyncio.Event()

    def changed(self, pool: PoolKey) -> None:
        """There may be something else to be told of a pool now."""
        self._changed.add(pool)
        self._wake.set()

    def remember(self, pools: Iterable[PoolKey]) -> None:
        """What was told for these pools by an earlier process of this pod is to be told anew."""
        for pool in pools:
            self._told[pool] = self._nothing.model_copy(update={"waiting": -1}), self._clock()
            self.changed(pool)

    async def run(self) -> None:
        """Goes on for ever."""
        while True:
            await self._wake.wait()
            await asyncio.sleep(GATHER)
            self._wake.clear()
            pools = self._changed - self._resting
            self._changed -= pools
            results = await asyncio.gather(*(self._tell(pool) for pool in pools))
            if not all(results):
                await asyncio.sleep(PAUSE)

    async def _tell(self, pool: PoolKey) -> bool:
        """Whether the pool's status says what is so."""
        entry, now = self._entry(pool), self._clock()
        told, when = self._told.get(pool, (self._nothing, now))
        if entry == told:
            return True
        is_as_before = entry == told.model_copy(update={"since": entry.since})
        if is_as_before and now - when < SLOW:
            return True  # the next change tells it
        self._resting.add(pool)
        asyncio.get_running_loop().call_later(SPACING, self._has_rested, pool)
        try:
            await self._write(pool, entry)
        except NotFoundError:
            pass
        except KubernetesError as error:
            log.warning("%s: cannot tell that %d wait: %s", pool, entry.waiting, error)
            self.changed(pool)
            return False
        if entry == self._nothing:
            self._told.pop(pool, None)
        else:
            self._told[pool] = entry, now
        return True

    def _has_rested(self, pool: PoolKey) -> None:
        self._resting.discard(pool)
        if pool in self._changed:
            self._wake.set()

    async def _write(self, pool: PoolKey, entry: GatewayStatus) -> None:
        body = {
            "apiVersion": naming.API_VERSION,
            "kind": naming.KIND,
            "metadata": {"name": pool.name, "namespace": pool.namespace},
            "status": {"gateways": [entry.to_dict()] if entry != self._nothing else []},
        }
        await self._cluster.apply(
            body, subresource="status", manager=f"{naming.FIELD_MANAGER}-{entry.name}"
        )
