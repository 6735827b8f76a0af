"""Leadership by a Lease: of several operator processes, one acts.

The usual rules (client-go's): a Lease that has not changed for as long as it says, by the watcher's
own clock, is free; whoever writes it first has it; who cannot renew it in good time stops acting
before others may start. Own code, because the official client's election ends at the first broken
connection and cannot create a Lease (docs/adr/0007).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from time import monotonic
from typing import Final

from buildpool.errors import ConflictError, KubernetesError
from buildpool.kube.cluster import Cluster
from buildpool.resources import Object, Ref

LEASE: Final = "buildpool-operator"
LEASE_SECONDS: Final = 15
"""How long a silent leader is respected."""
DEADLINE_SECONDS: Final = 10.0
"""How long a leader tries to renew before it gives up: less than it is respected."""
RENEW_SECONDS: Final = 4.0
RETRY_SECONDS: Final = 2.0
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Sighting:
    """A state of the Lease, and when it was first seen by the watcher's own clock, in seconds."""

    spec: Object
    since: float


def may_claim(sighting: Sighting, identity: str, *, now: float) -> bool:
    """Whether the Lease is ours, nobody's, or its holder has been silent for too long."""
    holder = sighting.spec.get("holderIdentity")
    if not holder or holder == identity:
        return True
    respected: float = sighting.spec.get("leaseDurationSeconds", LEASE_SECONDS)
    return now >= sighting.since + respected


class Election:
    """One candidate for one Lease."""

    def __init__(self, cluster: Cluster, *, namespace: str, identity: str) -> None:
        self._cluster = cluster
        self._ref = Ref("Lease", namespace, LEASE)
        self._identity = identity
        self._sighting: Sighting | None = None

    async def lead(self, work: Callable[[], Awaitable[None]], stop: asyncio.Event) -> bool:
        """Waits for leadership and works until the work ends or leadership is lost.

        Whether it ended in peace: after a lost leadership the process must exit, for another one
        acts. ``stop`` ends the waiting; the work has to look at it itself.
        """
        while not await self._try():
            if await _is_set(stop, within=RETRY_SECONDS):
                return True
        log.info("%s leads.", self._identity)
        working = asyncio.ensure_future(work())
        renewing = asyncio.create_task(self._renew())
        await asyncio.wait({working, renewing}, return_when=asyncio.FIRST_COMPLETED)
        lost = renewing.done()
        for task in (working, renewing):
            task.cancel()
        await asyncio.gather(renewing, return_exceptions=True)
        if lost:
            log.error("%s has lost the Lease %s.", self._identity, self._ref)
            return False
        await self._release()
        await working
        return True

    async def _renew(self) -> None:
        """Ends when the leadership is lost."""
        renewed = monotonic()
        while monotonic() < renewed + DEADLINE_SECONDS:
            await asyncio.sleep(RENEW_SECONDS if renewed > monotonic() - 1 else RETRY_SECONDS)
            if await self._try():
                renewed = monotonic()

    async def _try(self) -> bool:
        """Creates, claims or renews the Lease; False where it is another's or cannot be written."""
        try:
            async with asyncio.timeout(RENEW_SECONDS):
                return await self._claim()
        except ConflictError:
            return False  # another one was faster
        except (KubernetesError, TimeoutError) as error:
            log.warning("The Lease %s cannot be claimed: %s", self._ref, error)
            return False

    async def _claim(self) -> bool:
        lease = await self._cluster.get(self._ref)
        if lease is None:
            head = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease"}
            metadata = {"name": self._ref.name, "namespace": self._ref.namespace}
            await self._cluster.create(
                {**head, "metadata": metadata, "spec": self._claimed(None, transitions=0)}
            )
            return True
        spec, now = lease.get("spec") or {}, monotonic()
        if self._sighting is None or self._sighting.spec != spec:
            self._sighting = Sighting(spec, now)
        if not may_claim(self._sighting, self._identity, now=now):
            return False
        transitions = spec.get("leaseTransitions", 0)
        acquired = spec.get("acquireTime")
        if spec.get("holderIdentity") != self._identity:
            transitions, acquired = transitions + 1, None
        version = lease["metadata"]["resourceVersion"]
        change = {
            "metadata": {"resourceVersion": version},
            "spec": self._claimed(acquired, transitions=transitions),
        }
        await self._cluster.patch(self._ref, change)
        return True

    def _claimed(self, acquired: str | None, *, transitions: int) -> Object:
        now = datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
        return {
            "holderIdentity": self._identity,
            "leaseDurationSeconds": LEASE_SECONDS,
            "acquireTime": acquired or now,
            "renewTime": now,
            "leaseTransitions": transitions,
        }

    async def _release(self) -> None:
        """Leaves the Lease to whoever wants it, so that nobody need wait for it to run out."""
        try:
            await self._cluster.patch(self._ref, {"spec": {"holderIdentity": ""}})
        except KubernetesError as error:
            log.info("The Lease %s could not be released and will run out: %s", self._ref, error)


async def _is_set(event: asyncio.Event, *, within: float) -> bool:
    try:
        async with asyncio.timeout(within):
            return await event.wait()
    except TimeoutError:
        return False
