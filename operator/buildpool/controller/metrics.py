"""What the operator tells Prometheus about itself and its pools.

Every metric is defined here, with its labels bounded by the number of pools. An own registry, so
that two operators can live in one test process. ``docs/reference/metrics.md`` is generated from it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from time import perf_counter

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
from buildpool.core.observed.cache import Usage

POOL = ("namespace", "pool")
SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


@dataclass(slots=True)
class Answer:
    """How a request ended: an HTTP status, or what kept it from having one."""

    code: str = "error"


class Metrics:
    """The metrics of one operator process."""

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        self.registry = registry or CollectorRegistry()
        own = self.registry
        self.leader = Gauge(
            "buildpool_leader", "1 while this process leads and acts, else 0.", registry=own
        )
        self._passes = Counter(
            "buildpool_passes_total",
            "Passes over a pool, by result.",
            (*POOL, "result"),
            registry=own,
        )
        self._pass_seconds = Histogram(
            "buildpool_pass_seconds", "Duration of a pass.", buckets=SECONDS, registry=own
        )
        self._requests = Counter(
            "buildpool_kubernetes_requests_total",
            "Requests to the Kubernetes API, by method, kind and HTTP status.",
            ("method", "kind", "code"),
            registry=own,
        )
        self._request_seconds = Histogram(
            "buildpool_kubernetes_request_seconds",
            "Duration of a request to the Kubernetes API.",
            ("method",),
            buckets=SECONDS,
            registry=own,
        )
        self._wanted = Gauge(
            "buildpool_builders_wanted", "Builders a pool shall have.", POOL, registry=own
        )
        self._ready = Gauge(
            "buildpool_builders_ready", "Builders that take builds.", POOL, registry=own
        )
        self._builds = Gauge(
            "buildpool_builds_running",
            "Builds that run on the builders of a pool.",
            POOL,
            registry=own,
        )
        self._slots = Gauge(
            "buildpool_slots",
            "Builds that the builders which take builds are meant to run at once.",
            POOL,
            registry=own,
        )
        self._builders = Gauge(
            "buildpool_builders",
            "Builders of a pool, by state: Starting, Serving, Draining.",
            (*POOL, "state"),
            registry=own,
        )
        self._unknown = Gauge(
            "buildpool_builders_load_unknown",
            "Builders whose daemon does not say what runs on it; they are left alone.",
            POOL,
            registry=own,
        )
        self._size = Counter(
            "buildpool_size_changes_total",
            "Changes of the number of builders a pool shall have, by the reason of the decision.",
            (*POOL, "reason"),
            registry=own,
        )
        self._lost = Counter(
            "buildpool_builders_lost_total",
            "Builders that ended while builds ran on them.",
            POOL,
            registry=own,
        )
        self._overdue = Gauge(
            "buildpool_builders_overdue",
            "Builders with a build that outlives builders.maxBuildDuration.",
            POOL,
            registry=own,
        )
        self._condition = Gauge(
            "buildpool_condition",
            "1 where a pool's condition is True, else 0.",
            (*POOL, "condition"),
            registry=own,
        )
        self._expiry = Gauge(
            "buildpool_certificate_expiry_timestamp_seconds",
            "End of the first of a pool's certificates, in seconds since the epoch, by their use: "
            "client, builder, gateway, cache.",
            (*POOL, "use"),
            registry=own,
        )
        self._authority_expiry = Gauge(
            "buildpool_authority_expiry_timestamp_seconds",
            "End of the authority of a pool, in seconds since the epoch.",
            POOL,
            registry=own,
        )
        self._rotating = Gauge(
            "buildpool_authority_rotating",
            "1 while the authority of a pool is being replaced, else 0.",
            POOL,
            registry=own,
        )

        self._cache_used = Gauge(
            "buildpool_cache_used_bytes", "Disk space a managed cache takes.", POOL, registry=own
        )
        self._cache_capacity = Gauge(
            "buildpool_cache_capacity_bytes", "Room a managed cache has.", POOL, registry=own
        )
        self._cache_refs = Gauge(
            "buildpool_cache_refs", "Caches in a managed cache registry.", POOL, registry=own
        )
        self._cache_reclaimed = Counter(
            "buildpool_cache_reclaimed_bytes_total",
            "Bytes that a managed cache has given back, since this process started.",
            POOL,
            registry=own,
        )
        self._cache_damaged = Counter(
            "buildpool_cache_damaged_blobs_total",
            "Blobs of a managed cache that were found damaged, since this process started.",
            POOL,
            registry=own,
        )
        self._usage: dict[PoolKey, Usage] = {}

    @contextmanager
    def request(self, method: str, kind: str) -> Iterator[Answer]:
        """Measures one request; the block sets the answer's code."""
        answer, started = Answer(), perf_counter()
        try:
            yield answer
        finally:
            self._requests.labels(method, kind, answer.code).inc()
            self._request_seconds.labels(method).observe(perf_counter() - started)

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
        of_pools = (
            self._passes,
            self._wanted,
            self._ready,
            self._builds,
            self._slots,
            self._builders,
            self._unknown,
            self._overdue,
            self._size,
            self._lost,
            self._condition,
            self._expiry,
            self._authority_expiry,
            self._rotating,
        )
        of_caches = (
            self._cache_used,
            self._cache_capacity,
            self._cache_refs,
            self._cache_reclaimed,
            self._cache_damaged,
        )
        for metric in (*of_pools, *of_caches):
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


def described(metrics: object) -> Iterator[tuple[str, str, tuple[str, ...], str]]:
    """Name, type, labels and meaning of each metric of a process, for the documentation."""
    for value in vars(metrics).values():
        if isinstance(value, MetricWrapperBase):
            family = next(iter(value.describe()))
            suffix = "_total" if family.type == "counter" else ""
            labels = value._labelnames  # noqa: SLF001
            yield family.name + suffix, family.type, labels, family.documentation
