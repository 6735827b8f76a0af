"""The metrics of the gateway. Labels are bounded by pools and their clients.

An own registry, like the operator's. ``docs/reference/metrics.md`` is generated from it.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from buildpool.core.naming import PoolKey
from buildpool.core.routing.sharing import Share

POOL: Final = ("namespace", "pool")
CLIENT: Final = (*POOL, "client")
WAIT_BUCKETS: Final = (0.1, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 900, 1800)
BUILD_BUCKETS: Final = (1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1800, 3600, 7200)
MAX_STEPS: Final = 100_000
"""What one build can add to the number of steps: its daemon may say anything."""
DECISION_BUCKETS: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5)


class GatewayMetrics:
    """The metrics of one pod of the gateway."""

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        self.registry = own = registry or CollectorRegistry()
        self._known: dict[PoolKey, set[str]] = {}
        """The clients of each pool for which a number of waiting builds is shown."""
        self._have_built: set[PoolKey] = set()
        """Pools of which builds are shown."""
        self.pools = Gauge("buildpool_gateway_pools", "Pools that are served.", registry=own)
        self.envoys = Gauge(
            "buildpool_gateway_envoys", "Envoys that are connected; 1 in each pod.", registry=own
        )
        self.rejected_configurations = Counter(
            "buildpool_gateway_configurations_rejected_total",
            "Configurations that Envoy refused; the one before serves on.",
            registry=own,
        )
        self.spans_made = Counter(
            "buildpool_gateway_spans_made_total",
            "Spans that were made for the traces of clients.",
            registry=own,
        )
        self.spans_sent = Counter(
            "buildpool_gateway_spans_sent_total",
            "Spans that the collector of traces has taken. What stays missing of those made was "
            "dropped.",
            registry=own,
        )
        self._waiting = Gauge(
            "buildpool_gateway_waiting", "Builds that wait for a slot.", CLIENT, registry=own
        )
        self._wait_seconds = Histogram(
            "buildpool_gateway_wait_seconds",
            "How long connections that then built waited for a slot.",
            CLIENT,
            buckets=WAIT_BUCKETS,
            registry=own,
        )
        self._builds = Counter(
            "buildpool_gateway_builds_total",
            "Builds that ended, by client and result: succeeded, failed, abandoned by the client, "
            "cancelled by somebody who may change the pool, or lost with the builder.",
            (*CLIENT, "result"),
            registry=own,
        )
        self._build_seconds = Histogram(
            "buildpool_gateway_build_seconds",
            "How long builds ran, without their wait for a slot, by client and result.",
            (*CLIENT, "result"),
            buckets=BUILD_BUCKETS,
            registry=own,
        )
        self._steps = Counter(
            "buildpool_gateway_steps_total",
            "Steps of builds that ended, by client and what: cached, or run. None is counted of a "
            "build whose daemon does not say.",
            (*CLIENT, "what"),
            registry=own,
        )
        self._placed = Counter(
            "buildpool_gateway_placements_total",
            "Builds by how their builder was chosen: favourite (it has built this before), spilled "
            "(the favourite was full), kept (an earlier build of the connection chose).",
            (*POOL, "choice"),
            registry=own,
        )
        self._shared = Counter(
            "buildpool_gateway_cache_added_total",
            "Builds to which the shared cache was added, by what: import or export.",
            (*POOL, "what"),
            registry=own,
        )
        self._refused = Counter(
            "buildpool_gateway_refused_total",
            "Requests and connections that were refused, by gRPC status; TLS for a handshake that "
            "failed, NO_POOL for a name that no pool has. A client that hung up was not refused. "
            "The client is empty where it is none of the pool's.",
            (*CLIENT, "reason"),
            registry=own,
        )
        self._decision_seconds = Histogram(
            "buildpool_gateway_decision_seconds",
            "How long the router took to say where a request goes, by what the request means to "
            "it; hello and session include what was waited for.",
            ("kind",),
            buckets=DECISION_BUCKETS,
            registry=own,
        )

    def waiting(self, pool: PoolKey, clients: Mapping[str, int]) -> None:
        """The number of builds of each client that wait now."""
        known = self._known.setdefault(pool, set())
        for client in known - clients.keys():
            self._waiting.remove(*pool, client)
        self._known[pool] = set(clients)
        for client, builds in clients.items():
            self._waiting.labels(*pool, client).set(builds)

    def waited(self, pool: PoolKey, client: str, wait: timedelta) -> None:
        """A connection that builds got its slot after this time."""
        self._wait_seconds.labels(*pool, client).observe(wait.total_seconds())

    def built(self, pool: PoolKey, client: str, result: str, took: timedelta) -> None:
        """A build has ended, after this time."""
        self._have_built.add(pool)
        self._builds.labels(*pool, client, result).inc()
        # The clock may have been set back.
        seconds = max(0.0, took.total_seconds())
        self._build_seconds.labels(*pool, client, result).observe(seconds)

    def stepped(self, pool: PoolKey, client: str, *, cached: int, steps: int) -> None:
        """The daemon of a build that has ended says of how many steps it was.

        It says so later than the build ends, so its pool may be gone: then nothing is shown.
        """
        if pool not in self._have_built:
            return
        steps = min(steps, MAX_STEPS)
        cached = min(cached, steps)
        self._steps.labels(*pool, client, "cached").inc(cached)
        self._steps.labels(*pool, client, "run").inc(steps - cached)

    def placed(self, pool: PoolKey, is_favourite: bool | None) -> None:
        """A build has got its builder."""
        choice = "kept" if is_favourite is None else "favourite" if is_favourite else "spilled"
        self._placed.labels(*pool, choice).inc()

    def shared(self, pool: PoolKey, share: Share) -> None:
        """What was added to a build."""
        for what, references in (("import", share.imports), ("export", share.exports)):
            if references:
                self._shared.labels(*pool, what).inc()

    def refused(self, pool: PoolKey, reason: str, *, client: str = "") -> None:
        """A request or a connection was refused."""
        self._refused.labels(*pool, client, reason).inc()

    def decided(self, kind: str, seconds: float) -> None:
        """The router has said where a request goes, or that it goes nowhere."""
        self._decision_seconds.labels(kind).observe(seconds)

    def forget(self, pool: PoolKey) -> None:
        """Shows nothing more of a pool that is gone."""
        self._known.pop(pool, None)
        self._have_built.discard(pool)
        labels = dict(zip(POOL, pool, strict=True))
        for metric in (
            self._waiting,
            self._wait_seconds,
            self._builds,
            self._build_seconds,
            self._steps,
            self._placed,
            self._shared,
            self._refused,
        ):
            metric.remove_by_labels(labels)
