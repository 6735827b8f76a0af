"""Plans of pools with a shared cache: when it runs, when it goes, what waits for what."""

from __future__ import annotations

from typing import Any

import pytest

from buildpool.core import naming
from buildpool.core.api import EventReason, Pool
from buildpool.core.objects.refs import Ref
from buildpool.core.resources import has_guard
from memory_cluster import MemoryCluster, settled
from plans import applied, deleted, removed, retired
from samples import a_pool, planned

MANAGED = {"registry": {"managed": {"storage": {"size": "1Gi"}}}}
OBJECTS = (
    "ConfigMap/ci-cache",
    "ConfigMap/ci-cache-recipes",
    "Deployment/ci-cache",
    "PersistentVolumeClaim/ci-cache",
    "Secret/ci-cache",
    "Secret/ci-cache-client",
    "Service/ci-cache",
)


def a_cached_pool(**overrides: Any) -> Pool:
    return a_pool(cache=MANAGED, **overrides)


def cache_objects(cluster: MemoryCluster) -> tuple[str, ...]:
    return tuple(
        sorted(
            f"{ref.kind}/{ref.name}" for ref in cluster.objects if ref.name.startswith("ci-cache")
        )
    )


def test_a_managed_cache_consists_of_these() -> None:
    assert cache_objects(settled(a_cached_pool())) == OBJECTS


def test_an_external_cache_is_nothing_but_recipes() -> None:
    pool = a_pool(cache={"registry": {"ref": "r.example/caches"}})
    assert cache_objects(settled(pool)) == ("ConfigMap/ci-cache-recipes",)


def test_its_creation_and_removal_are_told_as_a_caches() -> None:
    cluster = MemoryCluster()
    plans = cluster.settle(a_cached_pool())
    told = {change.ref: change.reason for todo in plans for change in todo.apply}
    deployment = Ref("Deployment", "builds", "ci-cache")
    assert told[deployment] is EventReason.CREATED_CACHE
    plans = cluster.settle(a_pool())
    removed = {d.ref: d.reason for todo in plans for d in todo.delete}
    assert removed[deployment] is EventReason.REMOVED_CACHE
    assert EventReason.REMOVED_CLIENT not in removed.values()


def test_the_cache_runs_as_long_as_there_are_builders() -> None:
    cluster = settled(a_cached_pool(replicas=2))
    assert cluster["Deployment/ci-cache"]["spec"]["replicas"] == 1
    cluster.settle(a_cached_pool(replicas=0))
    assert cluster["Deployment/ci-cache"]["spec"]["replicas"] == 0
    assert cache_objects(cluster) == OBJECTS
    cluster.settle(a_cached_pool(replicas=1))
    assert cluster["Deployment/ci-cache"]["spec"]["replicas"] == 1


def test_a_builder_that_still_drains_keeps_the_cache_running() -> None:
    cluster = settled(a_cached_pool(replicas=1))
    pool = a_cached_pool(replicas=0)
    retiring, removing = cluster.step(pool), cluster.plan(pool)
    assert retired(retiring) == removed(removing) == ["ci-builder-0"]
    cluster.act(removing)
    cluster.builds = {"ci-builder-0": 1}  # one that no daemon had told of
    cluster.drain()
    cluster.settle(pool)
    assert cluster["Deployment/ci-cache"]["spec"]["replicas"] == 1
    cluster.builds = {}
    cluster.drain()
    cluster.settle(pool)
    assert cluster["Deployment/ci-cache"]["spec"]["replicas"] == 0


def test_a_cache_that_is_wanted_no_more_stays_while_a_builder_reads_it() -> None:
    cluster = settled(a_cached_pool(replicas=2))
    cluster.builds = {"ci-builder-0": 1}
    pool = a_pool(replicas=2)
    plans = cluster.settle(pool)
    assert not any(name.endswith("ci-cache") for todo in plans for name in deleted(todo))
    assert cache_objects(cluster) == OBJECTS
    assert any(has_guard(pod) for pod in cluster.pods.values())
    cluster.builds = {}
    cluster.settle(pool)
    assert not any(has_guard(pod) for pod in cluster.pods.values())
    assert cache_objects(cluster) == ()


def test_its_deployment_goes_after_its_secrets_which_are_found_by_it() -> None:
    cluster = settled(a_cached_pool(replicas=0))
    plans = cluster.settle(a_pool(replicas=0))
    first, last = (deleted(todo) for todo in plans if todo.delete)
    assert "Secret/ci-cache" in first
    assert "Secret/ci-cache-client" in first
    assert last == ["Deployment/ci-cache"]


def test_a_changed_cache_is_no_reason_to_replace_a_builder() -> None:
    cluster = settled(a_cached_pool())
    pool = a_pool(cache={"registry": {"managed": {"storage": {"size": "2Gi"}, "retention": "3d"}}})
    _, todo = planned(pool, cluster.observe(pool))
    assert set(applied(todo)) == {"PersistentVolumeClaim/ci-cache", "Deployment/ci-cache"}


def test_a_new_certificate_of_the_registry_restarts_it_and_nothing_else() -> None:
    cluster = settled(a_cached_pool())
    del cluster.objects[Ref("Secret", "builds", "ci-cache")]
    pool = a_cached_pool()
    _, todo = planned(pool, cluster.observe(pool))
    assert set(applied(todo)) == {"Secret/ci-cache", "Deployment/ci-cache"}


def test_a_new_certificate_for_the_registry_restarts_nothing() -> None:
    cluster = settled(a_cached_pool())
    del cluster.objects[Ref("Secret", "builds", "ci-cache-client")]
    pool = a_cached_pool()
    _, todo = planned(pool, cluster.observe(pool))
    assert applied(todo) == ["Secret/ci-cache-client"]


@pytest.mark.parametrize("cache", [{}, MANAGED])
def test_a_builder_has_a_guard_exactly_where_the_cache_is_managed(cache: dict[str, Any]) -> None:
    template = settled(a_pool(cache=cache))["Deployment/ci-builder-0"]["spec"]["template"]
    assert has_guard(template) is bool(cache)
    names = [volume["name"] for volume in template["spec"]["volumes"]]
    assert ("cache" in names) is bool(cache)


def test_the_names_of_a_cache_may_be_taken() -> None:
    cluster = settled(a_pool())
    foreign = {"kind": "Service", "metadata": {"name": "ci-cache", "namespace": "builds"}}
    cluster.objects[Ref("Service", "builds", "ci-cache")] = foreign
    _, todo = planned(a_cached_pool(), cluster.observe(a_cached_pool()))
    assert todo.conflicts == (Ref("Service", "builds", "ci-cache"),)
    assert not todo.apply


def test_the_pods_of_cache_and_builders_are_told_apart() -> None:
    pool = a_cached_pool()
    world = settled(pool).observe(pool)
    assert [pod["metadata"]["labels"][naming.LABEL_BUILDER] for pod in world.pods] == [
        "ci-builder-0"
    ]
    assert len(world.cache_pods) == 1
