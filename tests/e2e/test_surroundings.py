"""What a pool has around it where companies run it: a quota for everything, a collector of traces.

Both pools start at the same time.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from cluster import Api, a_pool, eventually
from e2e.caches import ManagedCache, managed
from e2e.clients import SHORT, client_of, context
from e2e.collectors import Collector, silent_collector
from e2e.pools import pods_of, settle, settle_cache
from e2e.registries import bring

HARD: Final = {
    "requests.cpu": "8",
    "requests.memory": "16Gi",
    "limits.cpu": "8",
    "limits.memory": "16Gi",
}
"""Of each container such a quota wants to know all four."""
COMPUTE: Final = {
    "requests": {"cpu": "100m", "memory": "128Mi"},
    "limits": {"cpu": "1", "memory": "1Gi"},
}


@pytest.fixture(scope="module")
def collector(api: Api, quota_namespace: str, shared_namespace: str) -> Iterator[Collector]:
    """A silent collector; both pools are on their way."""
    bring("registry")
    metadata = {"name": "compute", "namespace": quota_namespace}
    quota = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": metadata}
    api.apply({**quota, "spec": {"hard": HARD}})
    eventually(lambda: used(api, quota_namespace), within=30, what="the quota is in force")
    cache = managed("1Gi")
    cache["registry"]["managed"]["resources"] = COMPUTE
    storage = {"volumeClaim": {"size": "2Gi"}}
    builders = {"resources": COMPUTE, "storage": storage}
    api.apply(a_pool("counted", quota_namespace, builders=builders, cache=cache))
    with silent_collector(api, shared_namespace) as collector:
        api.apply(a_pool("traced", shared_namespace, builders={"env": collector.traced()}))
        yield collector


@pytest.mark.usefixtures("collector")
def test_a_pool_with_all_its_parts_builds_in_a_namespace_with_a_quota(
    api: Api, quota_namespace: str, tmp_path: Path
) -> None:
    refused = api.kubectl("run", "unsaid", "-n", quota_namespace, "--image=none.example/none")
    assert "must specify limits.cpu" in refused.stderr
    settle(api, "counted", quota_namespace)
    settle_cache(api, "counted", quota_namespace)
    assert used(api, quota_namespace)["limits.cpu"] != "0"
    client = client_of(api, "counted", quota_namespace, tmp_path)
    cache = ManagedCache(api, "counted", quota_namespace)
    client.build(context(tmp_path / "context", SHORT), *cache.exports("short"))
    assert cache.repositories() == ["short"]


def test_a_collector_of_traces_that_is_silent_keeps_no_builder_from_serving(
    api: Api, collector: Collector, shared_namespace: str, tmp_path: Path
) -> None:
    """What calls it waits for ten seconds. How soon the pool serves shows tests/bench."""
    settle(api, "traced", shared_namespace)
    client = client_of(api, "traced", shared_namespace, tmp_path)
    client.build(context(tmp_path / "context", SHORT))
    eventually(lambda: collector.is_called, within=60, what="the daemon sends traces", every=0.5)
    (pod,) = pods_of(api, "traced", shared_namespace)
    assert [each["restartCount"] for each in pod["status"]["containerStatuses"]] == [0]
    # A probe that called the collector would hang each time; a busy node makes one or two slow.
    assert sum(event.get("count") or 1 for event in hung_probes(api, pod)) < 3


def hung_probes(api: Api, pod: dict[str, Any]) -> list[dict[str, Any]]:
    """The Events about probes of a pod that got no answer in time."""
    events = api.list("events", pod["metadata"]["namespace"])
    return [
        event
        for event in events
        if event["reason"] == "Unhealthy"
        and event["involvedObject"]["uid"] == pod["metadata"]["uid"]
        and "timed out" in event["message"]
    ]


def used(api: Api, namespace: str) -> dict[str, str]:
    """What the quota counts, once it counts."""
    quota = api.get("resourcequota", "compute", namespace) or {}
    counted: dict[str, str] = quota.get("status", {}).get("used", {})
    return counted
