"""What handlers are given: the parts of one operator process, wired together."""

from __future__ import annotations

from buildpool.buildkit import Daemon
from buildpool.buildkit.loads import Loads
from buildpool.controller.cache_poller import Inspector
from buildpool.controller.daemon_tracker import Survey
from buildpool.controller.gateway_watch import GatewayWatch
from buildpool.controller.loop import Tender
from buildpool.controller.metrics import Metrics
from buildpool.controller.orphans import Sweeper
from buildpool.controller.reconcile import Reconciler
from buildpool.controller.secret_poller import Sentinel
from buildpool.controller.wakeups import Wakeups
from buildpool.kube.cluster import Cluster
from buildpool.kube.events import Reporter
from buildpool.preflight import inspect
from buildpool.settings import Settings


class Operator:
    """The parts of one operator process."""

    def __init__(self, settings: Settings, cluster: Cluster, metrics: Metrics) -> None:
        self.settings = settings
        self.wakeups = Wakeups()
        self.asked: dict[str, tuple[object, ...]] = {}
        """What was asked of each pool, by uid, when it was woken last: generation, rotation, and
        builds that wait at the gateway."""
        self.sentinel = Sentinel(
            cluster, self.wakeups, reads_per_second=settings.secret_reads_per_second
        )
        self.sweeper = Sweeper(
            cluster, home=settings.namespace, namespaces=settings.watch_namespaces
        )
        self.gateways = GatewayWatch(cluster, self.wakeups, home=settings.namespace)
        self.inspector = Inspector(inspect, self.wakeups)
        self.loads = Loads(Daemon, self.wakeups)
        survey = Survey(cluster, self.loads)
        reconciler = Reconciler(
            cluster,
            Reporter(cluster, settings.identity),
            metrics,
            self.sentinel,
            self.inspector,
            survey,
            home=settings.namespace,
            image=settings.image,
            gateway=settings.gateway_service,
        )
        self.tender = Tender(
            reconciler,
            self.wakeups,
            (self.sentinel, self.inspector, survey),
            metrics,
            max_passes=settings.max_passes,
        )

    def __copy__(self) -> Operator:
        """Kopf copies its memo for each object; this one is for all of them."""
        return self
