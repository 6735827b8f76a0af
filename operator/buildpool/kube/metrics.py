"""What Prometheus is told of the requests to the Kubernetes API, by every program that makes some.

Labels are bounded by the kinds that this project touches.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from time import perf_counter
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Histogram

SECONDS: Final = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
"""Buckets for what takes as long as a request, or some of them."""


@dataclass(slots=True)
class RequestOutcome:
    """How a request ended: an HTTP status, or what kept it from having one."""

    code: str = "error"


class RequestMetrics:
    """The requests of one process. In a registry of its own where none is given."""

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        self.registry = own = registry or CollectorRegistry()
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

    @contextmanager
    def request(self, method: str, kind: str) -> Iterator[RequestOutcome]:
        """Measures one request; the block sets the outcome's code."""
        outcome, started = RequestOutcome(), perf_counter()
        try:
            yield outcome
        finally:
            self._requests.labels(method, kind, outcome.code).inc()
            self._request_seconds.labels(method).observe(perf_counter() - started)
