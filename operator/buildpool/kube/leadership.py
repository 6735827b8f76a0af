"""Leadership by a Lease: of several operator processes, one acts.

The usual rules (client-go's): a Lease that has not changed for as long as it says, by the watcher's
own clock, is free; whoever writes it first has it; who cannot renew it in good time stops acting
before others may start. Own code, because the official client's election ends at the first broken
connection and cannot create a Lease (docs/adr/0007).

Times are the event loop's, which no change of the date moves. The dates in a Lease are for people
and never judged.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum, auto
from typing import Final

from buildpool.core.errors import ConflictError, KubernetesError
from buildpool.core.objects.refs import Object, Ref
from buildpool.kube.cluster import Cluster

LEASE_SECONDS: Final = 15
"""How long a silent leader is respected."""
DEADLINE_SECONDS: Final = 10.0
"""How long after its last renewal a leader still begins another try. A try takes up to
``RENEW_SECONDS``: even the last one ends before the leader is no longer respected."""
RENEW_SECONDS: Final = 4.0
RETRY_SECONDS: Final = 2.0
log = logging.getLogger(__name__)


class Claim(Enum):
    """What became of a try to have the Lease, or to keep it."""

    OURS = auto()
    ANOTHERS = auto()
    UNKNOWN = auto()
    """The API server did not answer, or somebody else wrote at the same time."""


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
    """One candidate for one Lease; it may lead again after it has lost."""

    def __init__(self, cluster: Cluster, *, namespace: str, identity: str, name: str) -> None:
        """``name`` is the Lease's: candidates for one of another name are no rivals."""
        self._cluster = cluster
        self._ref = Ref("Lease", namespace, name)
        self._identity = identity
        self._sighting: Sighting | None = None
        self._renewed = -math.inf

    def is_respected(self) -> bool:
        """Whether no other candidate can lead now.

        A process that was stopped wakes in the middle of what it did, before it learns that it has
        lost: whatever acts for the leader has to ask before each request.
        """
        return asyncio.get_running_loop().time() < self._renewed + LEASE_SECONDS

    async def lead(self, work: Callable[[], Awaitable[None]], stop: asyncio.Event) -> None:
        """Waits for leadership and works until the work ends or leadership is lost.

        If it is lost, the work is cancelled and has to stop acting at once. Raises what the work
        raises. ``stop`` ends the waiting; the work has to look at it itself.
        """
        while await self._try() is not Claim.OURS:
            if await _is_set(stop, within=RETRY_SECONDS):
                return
        log.info("%s leads.", self._identity)
        working = asyncio.ensure_future(work())
        renewing = asyncio.create_task(self._renew())
        await asyncio.wait({working, renewing}, return_when=asyncio.FIRST_COMPLETED)
        lost = renewing.done()
        for task in (working, renewing):
            task.cancel()
        if lost:
            log.error("%s has lost the %s.", self._identity, self._ref)
        results = await asyncio.gather(working, renewing, return_exceptions=True)
        if not lost:
            await self._release()
        for result in results:
            if isinstance(result, Exception):
                raise result

    async def _renew(self) -> None:
        """Ends when the leadership is lost: to another one, or by silence."""
        clock, claim = asyncio.get_running_loop().time, Claim.OURS
        while clock() < self._renewed + DEADLINE_SECONDS:
            await asyncio.sleep(RENEW_SECONDS if claim is Claim.OURS else RETRY_SECONDS)
            claim = await self._try()
            if claim is Claim.ANOTHERS:
                return  # we were away for longer than we know: suspended, perhaps

    async def _try(self) -> Claim:
        """Creates, claims or renews the Lease."""
        # From before the request: others count from when it was written, which is later.
        started = asyncio.get_running_loop().time()
        try:
            async with asyncio.timeout(RENEW_SECONDS):
                claim = await self._claim()
        except ConflictError:
            return Claim.UNKNOWN  # another one was faster
        except (KubernetesError, TimeoutError) as error:
            why = str(error) or f"no answer within {RENEW_SECONDS:g} s"
            log.warning("The %s cannot be claimed: %s.", self._ref, why)
            return Claim.UNKNOWN
        self._renewed = started if claim is Claim.OURS else -math.inf
        return claim

    async def _claim(self) -> Claim:
        lease = await self._cluster.get(self._ref)
        if lease is None:
            head = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease"}
            metadata = {"name": self._ref.name, "namespace": self._ref.namespace}
            await self._cluster.create(
                {**head, "metadata": metadata, "spec": self._claimed(None, transitions=0)}
            )
            return Claim.OURS
        spec, now = lease.get("spec") or {}, asyncio.get_running_loop().time()
        if self._sighting is None or self._sighting.spec != spec:
            self._sighting = Sighting(spec, now)
        if not may_claim(self._sighting, self._identity, now=now):
            return Claim.ANOTHERS
        transitions = spec.get("leaseTransitions", 0)
        acquired = spec.get("acquireTime")
        if spec.get("holderIdentity") != self._identity:
            transitions, acquired = transitions + 1, None
        await self._write(lease, self._claimed(acquired, transitions=transitions))
        return Claim.OURS

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
        self._renewed = -math.inf
        try:
            async with asyncio.timeout(RENEW_SECONDS):
                lease = await self._cluster.get(self._ref)
                if lease and (lease.get("spec") or {}).get("holderIdentity") == self._identity:
                    await self._write(lease, {"holderIdentity": ""})
        except (KubernetesError, TimeoutError) as error:
            why = str(error) or f"no answer within {RENEW_SECONDS:g} s"
            log.info("The %s could not be released and will run out: %s.", self._ref, why)

    async def _write(self, seen: Object, spec: Object) -> None:
        """Changes the Lease, unless somebody else has since it was seen."""
        version = {"resourceVersion": seen["metadata"]["resourceVersion"]}
        await self._cluster.patch(self._ref, {"metadata": version, "spec": spec})


async def _is_set(event: asyncio.Event, *, within: float) -> bool:
    try:
        async with asyncio.timeout(within):
            return await event.wait()
    except TimeoutError:
        return False
