"""What a pass is told of daemons, and what it tells about which of them to ask.

Between passes, ``loads`` asks the daemons; this keeps what belongs to it for each pool: the
operator's own certificate, what ran where at the last look, and how much was served before this
process began to count. All of it can be lost: the next pass starts from what is in the cluster.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

from buildpool.buildkit import DaemonAccess
from buildpool.buildkit.loads import Loads
from buildpool.controller.memory_poller import MemoryPoller
from buildpool.core import naming
from buildpool.core.api import Pool
from buildpool.core.api.events import Event
from buildpool.core.naming import PoolKey
from buildpool.core.objects.pods import has_daemon, name_of_builder
from buildpool.core.objects.refs import is_terminating
from buildpool.core.observed.observation import Observation
from buildpool.core.pki import Bundle, issue, why_reissue
from buildpool.core.planning.certificates import operator_request
from buildpool.core.planning.situation import Situation
from buildpool.core.reporting.losses import Sight, look
from buildpool.core.scaling import SETTLE
from buildpool.kube.cluster import Cluster


@dataclass(slots=True)
class _Known:
    access: Bundle | None = None
    sights: Mapping[str, Sight] = field(default_factory=dict)
    before: dict[str, int] = field(default_factory=dict)
    """Builds that were served in each pod before the present count began, by uid."""
    counted: dict[str, int] = field(default_factory=dict)
    """The present count, by uid, which begins again when a daemon does."""
    lost: tuple[Event, ...] = ()
    """What is to be told."""


class DaemonTracker:
    """The daemons of all pools, as passes need them."""

    def __init__(self, cluster: Cluster, loads: Loads) -> None:
        self._loads = loads
        self._memory = MemoryPoller(cluster)
        self._known: dict[PoolKey, _Known] = {}

    async def enrich(self, pool: Pool, observation: Observation) -> Observation:
        """The observation, with what the daemons of the pool said last."""
        known = self._known.setdefault(pool.key, _Known())
        served = {builder.name: builder.served or 0 for builder in pool.status.builders}
        known.before = {
            uid: known.before.get(uid, served.get(name_of_builder(pod), 0))
            for pod in observation.pods
            for uid in [pod["metadata"]["uid"]]
        }
        loads = {}
        for uid, load in self._loads.loads(pool.key).items():
            if load.served < known.counted.get(uid, 0):
                known.before[uid] = known.before.get(uid, 0) + known.counted[uid]
            known.counted[uid] = load.served
            loads[uid] = replace(load, served=load.served + known.before.get(uid, 0))
        known.counted = {uid: n for uid, n in known.counted.items() if uid in known.before}
        return replace(observation, loads=loads, memory=self._memory_of(pool))

    def lost_builds(self, pool: Pool, observation: Observation) -> tuple[Event, ...]:
        """The builds that have been lost and were not told yet."""
        known = self._known.setdefault(pool.key, _Known())
        known.sights, events = look(known.sights, observation)
        known.lost += events
        return known.lost

    def acknowledge_lost(self, pool: PoolKey) -> None:
        """What was lost has been reported."""
        self._known.setdefault(pool, _Known()).lost = ()

    async def follow(self, s: Situation) -> None:
        """Has the daemons asked that there are now, and again those that are to be proven idle.

        The pool has its authority.
        """
        pool, observation, authority = s.pool, s.observation, s.authority
        assert authority is not None  # noqa: S101 - see above
        known = self._known.setdefault(pool.key, _Known())
        request = operator_request(pool)
        if why_reissue(known.access, request, authority, chance=s.chance, now=s.now) is not None:
            known.access = await asyncio.to_thread(issue, authority, request, now=s.now)
        assert known.access is not None  # noqa: S101 - none is a reason to issue one
        addresses = {
            pod["metadata"]["uid"]: naming.authority_form(pod["status"]["podIP"], naming.PORT)
            for pod in observation.pods
            # One that is told to go waits until nobody is connected.
            if has_daemon(pod) and pod["status"].get("podIP") and not is_terminating(pod)
        }
        self._loads.watch(pool.key, addresses, DaemonAccess(known.access.trust, known.access.pair))
        self._loads.ask(pool.key, _unproven(s))

    def forget(self, pool: PoolKey) -> None:
        """Knows nothing more of a pool that is gone."""
        self._known.pop(pool, None)
        self._loads.forget(pool)
        self._memory.forget(pool)

    async def run(self) -> None:
        """Goes on for ever: has the memory of pods asked, for those pools to which it matters."""
        await self._memory.run()

    def _memory_of(self, pool: Pool) -> Mapping[str, int]:
        """Bytes that pods take, by name, if it matters and the cluster has a metrics API."""
        if pool.spec.builders.recycle.max_memory is None:
            self._memory.forget(pool.key)
            return {}
        return self._memory.watch(pool.key)


def _unproven(s: Situation) -> Iterator[str]:
    """Daemons that may prove now that a retired builder is idle.

    Not those with builds: the end of the last one wakes us anyway.
    """
    for member in s.members:
        retired = member.builder.retired
        if retired is None or s.now < retired + SETTLE or not member.builder.is_idle:
            continue
        for pod in member.pods:
            load = s.observation.loads.get(pod["metadata"]["uid"])
            if load is not None and load.as_of < retired + SETTLE:
                yield pod["metadata"]["uid"]
