"""How many builders there are as plans are carried out, and what becomes of their volumes."""

from __future__ import annotations

from typing import Any

import pytest

from buildpool.core import naming
from buildpool.core.api import Pool
from buildpool.core.objects.refs import Ref, is_terminating
from memory_cluster import MemoryCluster, settled
from plans import (
    PERSISTENT,
    applied,
    created,
    deleted,
    image,
    removed,
    restored,
    retired,
    turnover,
)
from samples import a_pool


def builders_of(cluster: MemoryCluster) -> list[str]:
    return cluster.names("Deployment")


def volumes_of(cluster: MemoryCluster) -> list[str]:
    return cluster.names("PersistentVolumeClaim")


# --- up and down ---------------------------------------------------------------------------------


def test_scaling_up_adds_all_builders_at_once() -> None:
    cluster = settled(a_pool(replicas=1))
    assert applied(cluster.step(a_pool(replicas=4))) == [
        "Deployment/ci-builder-1",
        "Deployment/ci-builder-2",
        "Deployment/ci-builder-3",
    ]


def test_scaling_down_retires_idle_builders_and_removes_them_once_that_is_proven() -> None:
    cluster = settled(a_pool(replicas=4))
    assert [turnover(todo) for todo in cluster.settle(a_pool(replicas=2))] == [
        ([], ["ci-builder-2", "ci-builder-3"], []),
        ([], [], ["ci-builder-2", "ci-builder-3"]),
    ]


def test_scaling_down_leaves_busy_builders_alone_whatever_their_number() -> None:
    cluster = settled(a_pool(replicas=4))
    cluster.builds = {"ci-builder-2": 1, "ci-builder-3": 2}
    cluster.settle(a_pool(replicas=2))
    assert builders_of(cluster) == ["ci-builder-2", "ci-builder-3"]


def test_a_builder_too_many_takes_builds_until_it_is_idle() -> None:
    pool = a_pool(replicas=1)
    cluster = settled(a_pool(replicas=2))
    cluster.builds = {"ci-builder-0": 1, "ci-builder-1": 1}
    assert [turnover(todo) for todo in cluster.settle(pool)] == [([], [], [])], "only marks: busy"
    cluster.builds = {"ci-builder-0": 1}
    assert [turnover(todo) for todo in cluster.settle(pool)] == [
        ([], ["ci-builder-1"], []),
        ([], [], ["ci-builder-1"]),
    ]


def test_a_builder_that_does_not_answer_is_not_the_one_to_go() -> None:
    cluster = settled(a_pool(replicas=2))
    cluster.silent = {"ci-builder-1"}
    cluster.settle(a_pool(replicas=1))
    assert builders_of(cluster) == ["ci-builder-1"]


def test_a_pool_without_builders_is_one_whose_builders_have_drained() -> None:
    cluster = settled(a_pool(replicas=2))
    cluster.builds = {"ci-builder-0": 1}
    pool = a_pool(replicas=0)
    cluster.settle(pool)
    assert builders_of(cluster) == ["ci-builder-0"]
    cluster.builds = {}
    cluster.settle(pool)
    assert builders_of(cluster) == []


def test_a_retired_builder_serves_again_when_it_is_wanted_again() -> None:
    cluster = settled(a_pool(replicas=2))
    assert retired(cluster.step(a_pool(replicas=1))) == ["ci-builder-1"]
    todo = cluster.step(a_pool(replicas=3))
    assert (restored(todo), created(todo)) == (["ci-builder-1"], ["ci-builder-2"])
    metadata = cluster["Deployment/ci-builder-1"]["metadata"]
    assert naming.ANNOTATION_RETIRED not in metadata["annotations"]
    (pod,) = (pod for name, pod in cluster.pods.items() if "builder-1" in name)
    assert pod["metadata"]["labels"][naming.LABEL_SERVING] == "true"
    assert cluster.settle(a_pool(replicas=3)) == []


# --- by load -------------------------------------------------------------------------------------


def test_a_pool_follows_its_builds_up_at_once_and_down_after_a_calm() -> None:
    pool = a_pool(scaling={"min": 1, "max": 4, "idleAfter": "10m"})
    cluster = settled(pool)
    cluster.builds = {"ci-builder-0": 4}  # of two slots, of which four fifths may be taken
    assert created(cluster.step(pool)) == ["ci-builder-1", "ci-builder-2"]
    cluster.settle(pool)

    cluster.builds = {}
    assert [turnover(todo) for todo in cluster.settle(pool)] == [([], [], [])], "it is idle now"
    waits = cluster.plan(pool).recheck
    cluster.now += waits
    assert [turnover(todo) for todo in cluster.settle(pool)] == [
        ([], ["ci-builder-1", "ci-builder-2"], []),
        ([], [], ["ci-builder-1", "ci-builder-2"]),
    ]


def test_load_that_comes_back_while_builders_drain_costs_no_new_one() -> None:
    pool = a_pool(scaling={"min": 1, "max": 4, "idleAfter": "1s"})
    cluster = settled(pool)
    cluster.builds = {"ci-builder-0": 3}
    cluster.settle(pool)
    cluster.builds = {}
    while not (gone := retired(cluster.step(pool))):
        pass
    cluster.builds = {"ci-builder-0": 3}
    todo = cluster.step(pool)
    assert restored(todo) == gone
    assert created(todo) == removed(todo) == []


def test_a_rollout_does_not_make_a_pool_larger() -> None:
    cluster = settled(a_pool(builders=image("v1")))
    pool = a_pool(builders=image("v2"))
    sizes = {todo.decision.size for todo in cluster.settle(pool) if todo.decision}
    assert sizes == {1}


# --- volumes -------------------------------------------------------------------------------------


def a_persistent_pool(replicas: int, tag: str = "v1", **builders: Any) -> Pool:
    return a_pool(replicas=replicas, builders=image(tag, **PERSISTENT, **builders))


def test_the_volume_of_a_builder_that_is_gone_waits_for_the_next_one() -> None:
    large, small = (
        a_pool(scaling={"min": number, "max": 3}, builders=PERSISTENT) for number in (3, 1)
    )
    cluster = settled(large)
    before = {name: cluster[f"PersistentVolumeClaim/{name}"] for name in volumes_of(cluster)}
    cluster.settle(small)
    cluster.now += small.spec.scaling.idle_after
    cluster.settle(small)
    assert builders_of(cluster) == ["ci-builder-0"]
    assert volumes_of(cluster) == list(before)

    todo = cluster.step(large)
    assert applied(todo) == ["Deployment/ci-builder-1", "Deployment/ci-builder-2"]
    assert {name: cluster[f"PersistentVolumeClaim/{name}"] for name in before} == before


def test_rollouts_go_back_and_forth_between_the_same_volumes() -> None:
    cluster = settled(a_persistent_pool(1))
    for tag in ("v2", "v3", "v4"):
        cluster.settle(a_persistent_pool(1, tag))
        assert volumes_of(cluster) == ["ci-builder-0", "ci-builder-1"]
    assert builders_of(cluster) == ["ci-builder-1"]


@pytest.mark.parametrize(("surge", "kept"), [(1, 2), (3, 4)])
def test_no_more_volumes_wait_than_a_rollout_takes(surge: int, kept: int) -> None:
    cluster = settled(a_persistent_pool(6))
    cluster.settle(a_persistent_pool(1, rollout={"maxSurge": surge}))
    assert volumes_of(cluster) == [f"ci-builder-{index}" for index in range(kept)]


TIGHT = {"rollout": {"maxSurge": 0, "maxUnavailable": 1}}


def test_a_volume_does_not_go_before_the_pod_that_has_it() -> None:
    cluster = settled(a_persistent_pool(2, **TIGHT))
    pool = a_persistent_pool(1, **TIGHT)
    retiring, removing = cluster.step(pool), cluster.plan(pool)
    assert deleted(retiring) == []
    assert deleted(removing) == ["Deployment/ci-builder-1"]
    cluster.act(removing)
    cluster.builds = {"ci-builder-1": 1}  # one that no daemon had told of
    cluster.drain()
    assert any(is_terminating(pod) for pod in cluster.pods.values())
    assert cluster.settle(pool) == []
    cluster.builds = {}
    cluster.drain()
    assert deleted(cluster.step(pool)) == ["PersistentVolumeClaim/ci-builder-1"]


def test_a_number_is_not_given_again_while_a_pod_still_has_its_volume() -> None:
    cluster = settled(a_persistent_pool(2))
    cluster.step(a_persistent_pool(1))
    cluster.act(cluster.plan(a_persistent_pool(1)))
    cluster.builds = {"ci-builder-1": 1}
    cluster.drain()
    assert created(cluster.step(a_persistent_pool(2))) == ["ci-builder-2"]


def test_volumes_go_with_the_builders_that_had_them_where_storage_is_no_longer_persistent() -> None:
    cluster = settled(a_persistent_pool(1))
    cluster.builds = {"ci-builder-0": 1}
    pool = a_pool(replicas=1, builders=image("v1"))
    cluster.settle(pool)
    assert volumes_of(cluster) == ["ci-builder-0"]
    cluster.builds = {}
    cluster.settle(pool)
    assert volumes_of(cluster) == []


def test_a_volume_that_waits_has_grown_before_its_next_builder_starts() -> None:
    cluster = settled(a_persistent_pool(2))
    cluster.settle(a_persistent_pool(1))
    larger = {"storage": {"volumeClaim": {"size": "20Gi"}}}
    todo = cluster.step(a_pool(replicas=1, builders=image("v1", **larger)))
    assert applied(todo)[-2:] == ["PersistentVolumeClaim/ci-builder-1", "Deployment/ci-builder-1"]
    claim = cluster["PersistentVolumeClaim/ci-builder-1"]["spec"]
    assert claim["resources"]["requests"]["storage"] == "20Gi"


def test_a_volume_of_others_is_never_removed() -> None:
    cluster = settled(a_persistent_pool(1))
    ref = Ref("PersistentVolumeClaim", "builds", "ci-builder-7")
    theirs = {
        "kind": "PersistentVolumeClaim",
        "metadata": {
            "name": ref.name,
            "namespace": "builds",
            "uid": "theirs",
            "labels": {naming.LABEL_POOL: "ci"},
        },
    }
    cluster.objects[ref] = theirs
    assert cluster.settle(a_persistent_pool(1)) == []
