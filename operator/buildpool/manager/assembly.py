"""The parts of one operator process, wired together: what handlers are given."""

from __future__ import annotations

from functools import partial
from typing import Protocol

from buildpool.buildkit import Daemon
from buildpool.buildkit.loads import Loads
from buildpool.controller.cache_poller import CachePoller
from buildpool.controller.daemon_tracker import DaemonTracker
from buildpool.controller.gateway_watch import GatewayWatch
from buildpool.controller.loop import PoolLoop
from buildpool.controller.metrics import PoolMetrics
from buildpool.controller.orphans import OrphanSweeper
from buildpool.controller.reconcile import Reconciler
from buildpool.controller.rollout_turns import RolloutTurns
from buildpool.controller.secret_poller import SecretPoller
from buildpool.controller.wakeups import Wakeups
from buildpool.core.naming import Installation
from buildpool.kube.cluster import Cluster
from buildpool.kube.events import EventRecorder
from buildpool.preflight import Reach, inspect
from buildpool.settings import Settings


class Round(Protocol):
    """One of the parts that look after something for all pools."""

    async def run(self) -> None:
        """Goes on for ever."""


class Operator:
    """The parts of one operator process."""

    def __init__(self, settings: Settings, cluster: Cluster, metrics: PoolMetrics) -> None:
        self.settings = settings
        self.wakeups = Wakeups()
        self.asked: dict[str, tuple[object, ...]] = {}
        """What was asked of each pool, by uid, when it was woken last: generation, rotation, and
        builds that wait at the gateway."""
        self.secret_poller = SecretPoller(
            cluster, self.wakeups, reads_per_second=settings.secret_reads_per_second
        )
        self.orphan_sweeper = OrphanSweeper(
            cluster, home=settings.namespace, namespaces=settings.watch_namespaces
        )
        self.gateway_watch = GatewayWatch(cluster, self.wakeups, home=settings.namespace)
        reach = Reach(denied=settings.denied_networks)
        self.cache_poller = CachePoller(partial(inspect, reach=reach), self.wakeups)
        self.loads = Loads(Daemon, self.wakeups)
        self.tracker = DaemonTracker(cluster, self.loads)
        self.turns = RolloutTurns(self.wakeups, limit=settings.max_rollouts)
        reconciler = Reconciler(
            cluster,
            EventRecorder(cluster, settings.identity),
            metrics,
            self.secret_poller,
            self.cache_poller,
            self.tracker,
            self.turns,
            Installation(
                settings.namespace,
                settings.image,
                settings.gateway_service,
                settings.cluster_domain,
            ),
            self.orphan_sweeper.ask,
        )
        self.loop = PoolLoop(
            reconciler,
            self.wakeups,
            (self.secret_poller, self.cache_poller, self.tracker, self.turns),
            metrics,
            max_passes=settings.max_passes,
        )

    @property
    def rounds(self) -> tuple[Round, ...]:
        """What goes on beside the passes, each for all pools."""
        return (
            self.secret_poller,
            self.cache_poller,
            self.loads,
            self.tracker,
            self.orphan_sweeper,
            self.gateway_watch,
        )

    def __copy__(self) -> Operator:
        """Kopf copies its memo for each object; this one is for all of them."""
        return self
