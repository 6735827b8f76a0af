"""Plans of pools with a shared cache: when it runs, when it goes, what waits for what."""

from __future__ import annotations

from typing import Any

import pytest

from buildpool.core import naming
from buildpool.core.api import ConditionType, EventReason, Pool
from buildpool.core.objects.refs import Ref
from buildpool.core.resources import has_guard
from memory_cluster import DELETED, MemoryCluster, settled
from plans import applied, deleted, removed, retired
from samples import a_pool, clients, planned

MANAGED = {"registry": {"managed": {"storage": {"size": "1Gi"}}}}
EXTERNAL = {"registry": {"ref": "r.example/caches"}}
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


PARTS = [name for name in OBJECTS if name != "ConfigMap/ci-cache-recipes"]


def take(cluster: MemoryCluster, name: str) -> Ref:
    """Somebody else has this name."""
    kind, _, name = name.partition("/")
    ref = Ref(kind, "builds", name)
    metadata = {"name": name, "namespace": "builds", "uid": "theirs", "resourceVersion": "1"}
    cluster.objects[ref] = {"kind": kind, "metadata": metadata}
    return ref


def guarded(cluster: MemoryCluster) -> set[bool]:
    """Whether builders read a managed cache."""
    return {
        has_guard(obj["spec"]["template"])
        for ref, obj in cluster.objects.items()
        if ref.name.startswith("ci-builder-") and ref.kind == "Deployment"
    }


def told(cluster: MemoryCluster) -> dict[str, tuple[str, str]]:
    """Status and reason of each condition after the last pass."""
    assert cluster.status is not None
    return {c.type: (c.status.value, c.reason) for c in cluster.status.conditions}


@pytest.mark.parametrize("part", PARTS)
def test_a_cache_that_cannot_come_holds_up_nothing_else_of_its_pool(part: str) -> None:
    cluster = settled(a_pool(access=clients("ana")))
    ref = take(cluster, part)
    pool = a_cached_pool(replicas=2, access=clients("ana", "bob"))
    for _ in range(8):
        todo = cluster.step(pool)
        assert todo.conflicts == (ref,)
    assert cluster.names("Deployment") == sorted(
        {"ci-builder-0", "ci-builder-1", *([ref.name] if ref.kind == "Deployment" else [])}
    )
    assert Ref("Secret", "builds", "ci-client-bob") in cluster.objects
    assert cache_objects(cluster) == (part,)
    assert guarded(cluster) == {False}
    assert not applied(todo), "it is as it can be"
    said = told(cluster)
    assert said["CacheReady"] == ("False", "NameConflict")
    assert said["Stalled"] == ("True", "NameConflict")
    assert said["Ready"][0] == said["CertificatesReady"][0] == "True"
    del cluster.objects[ref]
    cluster.settle(pool)
    assert cache_objects(cluster) == OBJECTS
    assert guarded(cluster) == {True}


@pytest.mark.parametrize("part", [name for name in PARTS if not name.startswith("Secret/")])
def test_a_cache_whose_name_is_about_to_be_free_is_waited_for_by_builders_that_read_it(
    part: str,
) -> None:
    cluster = MemoryCluster()
    ref = take(cluster, part)  # by an earlier pool of this name, as its pod still ends
    cluster.objects[ref]["metadata"]["deletionTimestamp"] = DELETED
    pool = a_cached_pool()
    for _ in range(4):
        assert cluster.step(pool).conflicts == (ref,)
        assert guarded(cluster) == {True}
    assert told(cluster)["CacheReady"] == ("False", "NameConflict")
    assert told(cluster)["Stalled"][0] == "False", "it passes"
    builders = [name for name in cluster.names("Deployment") if name != "ci-cache"]
    del cluster.objects[ref]
    for _ in range(4):
        assert not deleted(cluster.step(pool))
    assert cache_objects(cluster) == OBJECTS
    assert [name for name in cluster.names("Deployment") if name != "ci-cache"] == builders


@pytest.mark.parametrize("cache", [MANAGED, EXTERNAL], ids=["managed", "external"])
def test_a_pool_works_whose_config_map_for_pipelines_is_somebody_elses(
    cache: dict[str, Any],
) -> None:
    cluster = MemoryCluster()
    take(cluster, "ConfigMap/ci-cache-recipes")
    for _ in range(4):
        cluster.step(a_pool(cache=cache))
    said = told(cluster)
    assert said["Ready"][0] == "True"
    assert said["Stalled"][0] == said["Reconciling"][0] == "False", "nobody waits for it"


@pytest.mark.parametrize("part", [name for name in PARTS if name.startswith("Secret/")])
def test_no_builder_waits_for_a_secret_of_its_cache_that_does_not_go(part: str) -> None:
    cluster = MemoryCluster()
    ref = take(cluster, part)  # and somebody's finalizer keeps it
    cluster.objects[ref]["metadata"]["deletionTimestamp"] = DELETED
    cluster.step(a_cached_pool())
    assert guarded(cluster) == {False}


@pytest.mark.parametrize("part", [name for name in PARTS if not name.startswith("Secret/")])
def test_a_cache_of_which_somebody_has_taken_a_name_goes_on_as_it_is(part: str) -> None:
    cluster = settled(a_cached_pool())
    ref = take(cluster, part)
    larger = {"registry": {"managed": {"storage": {"size": "2Gi"}}}}
    pool = a_pool(cache=larger, replicas=2)
    todos = [cluster.step(pool) for _ in range(8)]
    assert {"ci-builder-0", "ci-builder-1"} <= set(cluster.names("Deployment"))
    assert guarded(cluster) == {True}
    assert cache_objects(cluster) == OBJECTS
    assert not any(deleted(todo) for todo in todos)
    written = {name for todo in todos for name in applied(todo)}
    assert part not in written
    assert ("Deployment/ci-cache" in written) is (part == "Service/ci-cache"), "not in their volume"
    status = cluster.status
    assert status is not None
    cache = status.condition(ConditionType.CACHE_READY)
    assert cache is not None
    assert (cache.status, cache.reason) == ("False", "NameConflict")
    assert str(ref) in cache.message


@pytest.mark.parametrize("part", [name for name in PARTS if name.startswith("Secret/")])
def test_without_the_certificates_of_a_cache_that_is_there_nothing_is_done(part: str) -> None:
    cluster = settled(a_cached_pool())
    ref = take(cluster, part)
    todo = cluster.plan(a_cached_pool(replicas=2))
    assert todo.conflicts == (ref,)
    assert not todo.apply


def test_the_pods_of_cache_and_builders_are_told_apart() -> None:
    pool = a_cached_pool()
    world = settled(pool).observe(pool)
    assert [pod["metadata"]["labels"][naming.LABEL_BUILDER] for pod in world.pods] == [
        "ci-builder-0"
    ]
    assert len(world.cache_pods) == 1
