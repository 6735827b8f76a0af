from __future__ import annotations

import pytest

from buildpool.core.errors import UnavailableError
from buildpool.kube.metrics import RequestMetrics


def test_a_request_is_counted_by_how_it_ended() -> None:
    metrics = RequestMetrics()
    with metrics.request("PATCH", "Secret") as answer:
        answer.code = "200"
    with pytest.raises(UnavailableError), metrics.request("PATCH", "Secret"):
        raise UnavailableError("connection reset")
    sample = metrics.registry.get_sample_value
    for code in ("200", "error"):
        labels = {"method": "PATCH", "kind": "Secret", "code": code}
        assert sample("buildpool_kubernetes_requests_total", labels) == 1
    assert sample("buildpool_kubernetes_request_seconds_count", {"method": "PATCH"}) == 2
