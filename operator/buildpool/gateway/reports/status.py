"""Writes, into the pools' status, what waits at this pod: so a pool grows, or wakes.

Each pod of the gateway has an entry of its own, by server-side apply. It says what the pool is
served with, so that the operator knows when clients may come, and which builds wait. It is written
when either changes, so that an idle pool costs no write. The operator
ignores the entries of pods that are gone; a router that starts again removes what it left. Pools do
not wait for each other: one whose status cannot be written holds up no other.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Final

from buildpool.core import naming
from buildpool.core.api import PoolStatus
from buildpool.core.api.status import GatewayStatus, QueueStatus
from buildpool.core.errors import KubernetesError, NotFoundError
from buildpool.core.naming import PoolKey
from buildpool.kube.cluster import Cluster

GATHER_SECONDS: Final = 0.02
"""How long changes are gathered before they are written. Not longer: a build that has got its slot
and still stands as waiting would count twice."""
SPACING_SECONDS: Final = 0.2
"""Time between two writes for one pool: a client that connects and leaves, again and again, costs
the API server no more than that."""
RETRY_SECONDS: Final = 2.0
"""Time until the API server is asked again after it has failed."""
LIVENESS: Final = timedelta(seconds=20)
"""How often it is written that a queue moves, where as many wait as before."""
LONG_AGO: Final = datetime.min.replace(tzinfo=UTC)
"""When an earlier process wrote, as far as this one knows."""
MAX_CLIENTS: Final = 64
"""Clients of which the status says what waits; a pool has no more."""
Entry = Callable[[PoolKey], GatewayStatus]
"""What the status of a pool shall say of this pod now."""
log: Final = logging.getLogger(__name__)


def queue_of(waiting: Mapping[str, int]) -> tuple[QueueStatus, ...]:
    """What waits, by client; of clients of which nothing waits nothing is said."""
    named = sorted((name, builds) for name, builds in waiting.items() if builds)
    return tuple(QueueStatus(client=name, waiting=builds) for name, builds in named)[:MAX_CLIENTS]


class StatusWriter:
    """The entries of one pod. For one event loop."""

    def __init__(
        self,
        cluster: Cluster,
        *,
        identity: str,
        namespaces: tuple[str, ...],
        clock: Callable[[], datetime],
    ) -> None:
        """``identity`` is the name of the pod; ``namespaces`` are those of its pools, or all."""
        self._cluster = cluster
        self._nothing = GatewayStatus(name=identity)
        """The entry that says nothing: it is absent from the status."""
        self._namespaces = namespaces or ("",)
        self._clock = clock
        self._written: dict[PoolKey, tuple[GatewayStatus, datetime]] = {}
        self._changed: set[PoolKey] = set()
        self._busy: set[PoolKey] = set()
        """Pools that are written now, or were a moment ago."""
        self._wake = asyncio.Event()

    def changed(self, pool: PoolKey) -> None:
        """The entry of a pool may be another one now."""
        self._changed.add(pool)
        self._wake.set()

    async def run(self, entry: Entry) -> None:
        """Keeps the status of all pools as ``entry`` says. Never returns."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._take_over())
            while True:
                await self._wake.wait()
                self._wake.clear()
                for pool in self._changed - self._busy:
                    self._busy.add(pool)
                    group.create_task(self._keep(pool, entry))

    async def _keep(self, pool: PoolKey, entry: Entry) -> None:
        """Writes the entry of one pool, and rests."""
        await asyncio.sleep(GATHER_SECONDS)
        self._changed.discard(pool)
        await asyncio.sleep(await self._bring_up_to_date(pool, entry(pool)))
        self._busy.discard(pool)
        if pool in self._changed:
            self._wake.set()

    async def _bring_up_to_date(self, pool: PoolKey, entry: GatewayStatus) -> float:
        """Writes an entry if need be; returns the seconds until the pool may be written again."""
        now = self._clock()
        written, when = self._written.get(pool, (self._nothing, now))
        if entry == written:
            return 0
        is_as_before = entry == written.model_copy(update={"since": entry.since})
        if is_as_before and now - when < LIVENESS:
            return 0  # the next change writes it
        try:
            await self._write(pool, entry)
        except NotFoundError:
            pass
        except KubernetesError as error:
            log.warning("%s: cannot write what is served and waits: %s", pool, error)
            self.changed(pool)
            return RETRY_SECONDS
        if entry == self._nothing:
            self._written.pop(pool, None)
        else:
            self._written[pool] = entry, now
        return SPACING_SECONDS

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

    async def _take_over(self) -> None:
        """Finds what an earlier process of this pod wrote, which may not be so any more."""
        while True:
            try:
                found = [
                    raw
                    for namespace in self._namespaces
                    for raw in await self._cluster.select(naming.KIND, namespace, {})
                ]
            except KubernetesError as error:
                log.warning("Cannot read what the status of pools says of this pod: %s", error)
                await asyncio.sleep(RETRY_SECONDS)
                continue
            for raw in found:
                for entry in PoolStatus.read(raw.get("status")).gateways:
                    if entry.name == self._nothing.name:
                        pool = PoolKey(raw["metadata"]["namespace"], raw["metadata"]["name"])
                        self._written.setdefault(pool, (entry, LONG_AGO))
                        self.changed(pool)
            return
