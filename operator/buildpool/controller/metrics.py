"""What the operator tells Prometheus about its pools and its passes.

Labels are bounded by the number of pools. ``docs/reference/metrics.md`` is generated from this.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from time import perf_counter
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.metrics import MetricWrapperBase

from buildpool.core.api import (
    BuilderState,
    ConditionStatus,
    ConditionType,
    EventReason,
    PoolStatus,
)
from buildpool.core.api.status import CertificatesStatus
from buildpool.core.naming import PoolKey
from buildpool.core.observed.usage import Usage
from buildpool.core.planning.turns import waiting_since
from buildpool.kube.metrics import SECONDS

POOL: Final = ("namespace", "pool")


class PoolMetrics:
    """The pools and passes of one operator process."""

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        self.registry = own = registry or CollectorRegistry()
        self._of_pools: list[MetricWrapperBase] = []

        def gauge(name: str, meaning: str, *labels: str) -> Gauge:
            found = Gauge(f"buildpool_{name}", meaning, (*POOL, *labels), registry=own)
            self._of_pools.append(found)
            return found

        def counter(name: str, meaning: str, *labels: str) -> Counter:
            found = Counter(f"buildpool_{name}", meaning, (*POOL, *labels), registry=own)
            self._of_pools.append(found)
            return found

        self.leader = Gauge(
            "buildpool_leader", "1 while this process leads and acts, else 0.", registry=own
        )
        self._pass_seconds = Histogram(
            "buildpool_pass_seconds", "Duration of a pass.", buckets=SECONDS, registry=own
        )
        self._passes = counter("passes_total", "Passes over a pool, by result.", "result")
        self._wanted = gauge("builders_wanted", "Builders a pool is to have.")
        self._ready = gauge("builders_ready", "Builders that take builds.")
        self._builds = gauge("builds_running", "Builds that run on the builders of a pool.")
        self._slots = gauge(
            "slots", "Builds that the builders which take builds are meant to run at once."
        )
        self._builders = gauge(
            "builders", "Builders of a pool, by state: Starting, Serving, Draining.", "state"
        )
        self._unknown = gauge(
            "builders_load_unknown",
            "Builders whose daemon does not say what runs on it; they are left alone.",
        )
        self._size = counter(
            "size_changes_total",
            "Changes of the number of builders a pool is to have, by the reason of the decision.",
            "reason",
        )
        self._waits = gauge(
            "rollout_waiting",
            "1 while a pool waits for its turn to replace builders after an upgrade, else 0.",
        )
        self._lost = counter("builders_lost_total", "Builders that ended while builds ran on them.")
        self._overdue = gauge(
            "builders_overdue", "Builders with a build that outlives builders.maxBuildDuration."
        )
        self._condition = gauge(
            "condition", "1 where a pool's condition is True, else 0.", "condition"
        )
        self._expiry = gauge(
            "certificate_expiry_timestamp_seconds",
            "End of the first of a pool's certificates, in seconds since the epoch, by their use: "
            "client, builder, gateway, cache.",
            "use",
        )
        self._authority_expiry = gauge(
            "authority_expiry_timestamp_seconds",
            "End of the authority of a pool, in seconds since the epoch.",
        )
        self._rotating = gauge(
            "authority_rotating", "1 while the authority of a pool is being replaced, else 0."
        )
        self._cache_used = gauge("cache_used_bytes", "Disk space a managed cache takes.")
        self._cache_capacity = gauge("cache_capacity_bytes", "Room a managed cache has.")
        self._cache_refs = gauge("cache_refs", "Caches in a managed cache registry.")
        self._cache_reclaimed = counter(
            "cache_reclaimed_bytes_total",
            "Bytes that a managed cache has given back, since this process started.",
        )
        self._cache_damaged = counter(
            "cache_damaged_blobs_total",
            "Blobs of a managed cache that were found damaged, since this process started.",
        )
        self._usage: dict[PoolKey, Usage] = {}

    @contextmanager
    def measured_pass(self, pool: PoolKey) -> Iterator[None]:
        """Measures one pass over a pool."""
        result, started = "failed", perf_counter()
        try:
            yield
            result = "done"
        finally:
            self._passes.labels(*pool, result).inc()
            self._pass_seconds.observe(perf_counter() - started)

    def report(self, pool: PoolKey, before: PoolStatus, status: PoolStatus) -> None:
        """Shows the state of one pool, and counts what has changed since the status before."""
        size = status.scaling.size if status.scaling else 0
        self._wanted.labels(*pool).set(size)
        self._ready.labels(*pool).set(status.ready_replicas)
        self._builds.labels(*pool).set(status.busy_slots)
        self._slots.labels(*pool).set(status.slots)
        for state in BuilderState:
            count = sum(builder.state is state for builder in status.builders)
            self._builders.labels(*pool, state.value).set(count)
        self._unknown.labels(*pool).set(sum(b.builds is None for b in status.builders))
        overdue = sum(b.reason == EventReason.BUILD_OVERDUE for b in status.builders)
        self._overdue.labels(*pool).set(overdue)
        self._waits.labels(*pool).set(waiting_since(status) is not None)
        if status.scaling and before.scaling and before.scaling.size != size:
            self._size.labels(*pool, status.scaling.reason).inc()
        for kind in ConditionType:
            if status.condition(kind) is None and before.condition(kind) is not None:
                self._condition.remove(*pool, kind.value)
        for condition in status.conditions:
            holds = condition.status is ConditionStatus.TRUE
            self._condition.labels(*pool, condition.type).set(holds)
        for use, end in _ends(status).items():
            if end is None:
                self._expiry.remove(*pool, use)
            else:
                self._expiry.labels(*pool, use).set(end.timestamp())
        if status.authority:
            self._authority_expiry.labels(*pool).set(status.authority.not_after.timestamp())
            self._rotating.labels(*pool).set(status.authority.phase is not None)

    def report_lost(self, pool: PoolKey, builders: int) -> None:
        """Counts builders that have taken builds with them."""
        self._lost.labels(*pool).inc(builders)

    def report_cache(self, pool: PoolKey, usage: Usage | None) -> None:
        """Shows how a managed cache is; nothing new where its keeper was not asked."""
        if usage is None:
            return
        self._cache_used.labels(*pool).set(usage.used)
        self._cache_capacity.labels(*pool).set(usage.capacity)
        self._cache_refs.labels(*pool).set(usage.refs)
        before = self._usage.get(pool, usage)
        self._usage[pool] = usage
        # The keeper counts from its own start: after a restart it counts from zero.
        reclaimed, damaged = usage.reclaimed - before.reclaimed, usage.damaged - before.damaged
        self._cache_reclaimed.labels(*pool).inc(reclaimed if reclaimed >= 0 else usage.reclaimed)
        self._cache_damaged.labels(*pool).inc(damaged if damaged >= 0 else usage.damaged)

    def forget(self, pool: PoolKey) -> None:
        """Shows nothing more of a pool that is gone."""
        self._usage.pop(pool, None)
        for metric in self._of_pools:
            metric.remove_by_labels({"namespace": pool.namespace, "pool": pool.name})


def _ends(status: PoolStatus) -> dict[str, datetime | None]:
    """When the first certificate of each use ends; None where there is none."""
    others = status.certificates or CertificatesStatus()
    return {
        "client": min((client.not_after for client in status.clients), default=None),
        "builder": others.builder,
        "gateway": others.gateway,
        "cache": others.cache,
    }
