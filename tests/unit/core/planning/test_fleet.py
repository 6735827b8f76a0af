"""What is known of a pool's builders, from live objects and what daemons say."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from buildpool.core import naming
from buildpool.core.api import Pool, RetireReason
from buildpool.core.api.reasons import EventReason
from buildpool.core.objects.refs import Object, Ref
from buildpool.core.observed.load import Load, RunningBuild
from buildpool.core.observed.observation import Observation
from buildpool.core.planning.fleet import (
    Member,
)
from buildpool.core.planning.removal import plan_removal
from buildpool.core.planning.situation import Situation
from buildpool.core.scaling import FRESH, SETTLE
from memory_cluster import MemoryCluster, settled
from plans import image
from samples import DAY, NOW, OTHER_UID, a_load, a_pod, a_pool, a_situation, foreign, planned

SECOND = timedelta(seconds=1)
LEAVING = "2026-01-01T12:00:00Z"


def members(cluster: MemoryCluster, pool: Pool | None = None) -> tuple[Member, ...]:
    return known(cluster, pool).members


def known(cluster: MemoryCluster, pool: Pool | None = None) -> Situation:
    pool = pool or a_pool()
    return a_situation(pool, cluster.observe(pool), now=cluster.now)


def only(cluster: MemoryCluster, pool: Pool | None = None) -> Member:
    (member,) = members(cluster, pool)
    return member


def seen(
    *pods: Object, pool: Pool | None = None, loads: dict[str, Any] | None = None, **edits: Any
) -> Member:
    """The one builder of a pool with these pods, and its annotations as edited."""
    pool = pool or a_pool()
    cluster = settled(pool)
    observation = replace(cluster.observe(pool), pods=pods, loads=loads or {})
    deployment = observation.live[Ref("Deployment", "builds", "ci-builder-0")]
    deployment["metadata"]["annotations"] |= edits.get("annotations", {})
    (member,) = a_situation(pool, observation).members
    return member


def reason(member: Member) -> RetireReason | None:
    return member.builder.flaw.reason if member.builder.flaw else None


# --- who is a builder ----------------------------------------------------------------------------


def test_a_builder_that_serves_is_known_with_all_that_is_decided_on() -> None:
    cluster = settled(a_pool())
    member = only(cluster)
    builder = member.builder
    assert (member.name, member.ref) == ("ci-builder-0", Ref("Deployment", "builds", member.name))
    assert (builder.index, builder.created, builder.is_ready) == (0, NOW, True)
    assert (builder.builds, member.served, builder.as_of) == (0, 0, cluster.now)
    assert builder.flaw is builder.retired is builder.overdue is None
    assert member.is_current
    assert member.revision == known(cluster).revision


def test_builders_come_in_the_order_of_their_numbers() -> None:
    pool = a_pool(replicas=12)
    assert [member.builder.index for member in members(settled(pool), pool)] == list(range(12))


@pytest.mark.parametrize(
    "name",
    ["other", "ci-builder-", "ci-builder-01", "ci-builder-x", "ci-builder--1", "di-builder-0"],
)
def test_a_deployment_whose_name_is_no_builders_is_none(name: str) -> None:
    cluster = settled(a_pool())
    ref = Ref("Deployment", "builds", name)
    stray = {**cluster["Deployment/ci-builder-0"]}
    stray["metadata"] = {**stray["metadata"], "name": name}
    cluster.objects[ref] = stray
    assert only(cluster).builder.index == 0


def test_the_cache_is_no_builder() -> None:
    pool = a_pool(cache={"registry": {"managed": {}}})
    assert only(settled(pool), pool).name == "ci-builder-0"


def test_builders_of_a_namesake_are_none_of_the_pools_but_their_numbers_are_taken() -> None:
    pool = a_pool()
    s = known(settled(a_pool(uid=OTHER_UID)), pool)
    assert s.members == ()
    assert s.taken_numbers == {0}


def test_a_builder_that_is_being_deleted_is_none_but_its_number_is_taken() -> None:
    cluster = settled(a_pool())
    cluster["Deployment/ci-builder-0"]["metadata"]["deletionTimestamp"] = LEAVING
    assert members(cluster) == ()
    assert known(cluster).taken_numbers == {0}


def test_a_pod_that_ends_keeps_its_number_and_one_that_stays_waits_for_a_deployment() -> None:
    pods = a_pod("ci-builder-2"), a_pod("ci-builder-3", terminating=True), a_pod("of-others")
    assert a_situation(a_pool(), Observation(pods=pods)).taken_numbers == {3}


def test_volumes_take_no_number() -> None:
    pool = a_pool(builders={"storage": {"volumeClaim": {"size": "1Gi"}}})
    cluster = settled(pool)
    del cluster.objects[Ref("Deployment", "builds", "ci-builder-0")]
    cluster.pods.clear()
    assert known(cluster, pool).taken_numbers == frozenset()


def test_without_a_certificate_nothing_is_wanted_of_builders() -> None:
    assert a_situation(a_pool()).revision == ""


# --- what runs on it -----------------------------------------------------------------------------


def test_builds_are_those_that_its_daemon_says() -> None:
    cluster = settled(a_pool())
    cluster.builds, cluster.served = {"ci-builder-0": 2}, {"ci-builder-0": 7}
    member = only(cluster)
    assert (member.builder.builds, member.served) == (2, 7)
    assert [build.ref for build in member.builds] == ["build-0", "build-1"]


@pytest.mark.parametrize(
    ("routing", "age", "fresh"),
    [
        ("Gateway", timedelta(), 1),
        ("Gateway", FRESH - timedelta(milliseconds=1), 1),
        ("Gateway", FRESH, 0),
        ("Gateway", -FRESH, 0),  # its clock is wrong, and says nothing
        ("Direct", timedelta(), 0),
    ],
)
def test_a_build_behind_the_gateway_is_fresh_for_a_moment(
    routing: str, age: timedelta, fresh: int
) -> None:
    builds = (RunningBuild("old", NOW - DAY), RunningBuild("new", NOW - age))
    silent = RunningBuild("without a time", None)
    load = Load((*builds, silent), NOW)
    pod = a_pod()
    member = seen(pod, pool=a_pool(routing=routing), loads={pod["metadata"]["uid"]: load})
    assert (member.builder.builds, member.builder.fresh) == (3, fresh)


def test_a_daemon_that_does_not_answer_may_run_builds() -> None:
    cluster = settled(a_pool())
    cluster.silent = {"ci-builder-0"}
    member = only(cluster)
    assert (member.builder.builds, member.builder.as_of) == (None, None)


@pytest.mark.parametrize(
    "pods",
    [
        (),
        (a_pod(unschedulable="no node"),),
        (a_pod(waiting=("CrashLoopBackOff", "back-off")),),
        (a_pod(init=True, ready=False),),
    ],
    ids=["no pod", "no node", "it crashes", "it initializes"],
)
def test_where_no_daemon_runs_no_build_does(pods: tuple[Object, ...]) -> None:
    builder = seen(*pods).builder
    assert (builder.builds, builder.as_of, builder.is_ready) == (0, NOW, False)


def test_of_two_pods_both_count_and_the_older_answer() -> None:
    pods = a_pod(suffix="old"), a_pod(suffix="new")
    loads = {
        "pod-ci-builder-0-old": a_load(2, as_of=NOW - SECOND, served=5),
        "pod-ci-builder-0-new": a_load(1, as_of=NOW, served=1),
    }
    member = seen(*pods, loads=loads)
    assert (member.builder.builds, member.served, member.builder.as_of) == (3, 6, NOW - SECOND)
    half = seen(*pods, loads={"pod-ci-builder-0-new": a_load(1)})
    assert (half.builder.builds, half.builder.as_of) == (None, None)
    assert half.builder.is_ready


def test_a_pod_that_ends_is_not_the_builders_any_more() -> None:
    leaving = a_pod(suffix="old", terminating=True)
    member = seen(leaving, loads={"pod-ci-builder-0-old": a_load(2)})
    assert (member.pods, member.builder.builds, member.builder.is_ready) == ((), 0, False)


def test_a_pod_whose_node_is_lost_makes_no_load_unknown_though_its_daemon_is_said_to_run() -> None:
    lost = a_pod(suffix="old", phase="Failed", ready=True)
    member = seen(lost, a_pod(suffix="new"), loads={"pod-ci-builder-0-new": a_load(1)})
    assert (member.builder.builds, member.builder.as_of) == (1, NOW)
    alone = seen(lost).builder
    assert (alone.builds, alone.is_ready) == (0, False)


def test_pods_of_other_builders_are_not_counted() -> None:
    member = seen(a_pod("ci-builder-1"), loads={"pod-ci-builder-1-7c9d8b6f5d-x2x7k": a_load(2)})
    assert (member.pods, member.builder.builds) == ((), 0)


# --- whether it is to go -------------------------------------------------------------------------


def test_what_a_retired_builder_says_counts_once_it_is_out_of_the_service() -> None:
    annotations = {naming.ANNOTATION_RETIRED: (NOW - SETTLE).isoformat()}
    loads = {"pod-ci-builder-0-7c9d8b6f5d-x2x7k": a_load(0)}
    serving = seen(a_pod(serving=True), loads=loads, annotations=annotations).builder
    assert (serving.retired, serving.builds, serving.as_of) == (NOW - SETTLE, 0, None)
    retired = seen(a_pod(serving=False), loads=loads, annotations=annotations).builder
    assert (retired.retired, retired.builds, retired.as_of) == (NOW - SETTLE, 0, NOW)


@pytest.mark.parametrize("text", ["", "soon", "2026-13-01T00:00:00Z"])
def test_a_moment_that_somebody_garbled_is_none(text: str) -> None:
    assert seen(annotations={naming.ANNOTATION_RETIRED: text}).builder.retired is None


def test_moments_of_any_zone_are_understood() -> None:
    retired = seen(annotations={naming.ANNOTATION_RETIRED: "2026-01-01T14:00:00+02:00"})
    assert retired.builder.retired == NOW


def test_a_builder_that_was_just_made_is_as_old_as_now() -> None:
    cluster = settled(a_pool())
    del cluster["Deployment/ci-builder-0"]["metadata"]["creationTimestamp"]
    assert only(cluster).builder.created == cluster.now


def test_what_stands_reported_is_known_again() -> None:
    builders = [
        {"name": "ci-builder-0", "ready": True, "revision": "", "overdueSince": LEAVING},
        {"name": "ci-builder-1", "ready": True, "revision": ""},
    ]
    pool = a_pool(replicas=2, status={"builders": builders})
    assert [m.builder.overdue for m in members(settled(pool), pool)] == [NOW, None]


# --- what is the matter with it ------------------------------------------------------------------


def test_a_builder_that_runs_something_else_is_outdated_whatever_else_it_is() -> None:
    cluster = settled(a_pool(builders=image("v1")))
    cluster.served = {"ci-builder-0": 9}
    pool = a_pool(builders=image("v2", recycle={"maxBuilds": 1}))
    member = only(cluster, pool)
    assert reason(member) is RetireReason.OUTDATED
    assert not member.is_current


def test_a_builder_that_is_too_old_still_runs_what_it_shall() -> None:
    pool = a_pool(builders={"recycle": {"maxAge": "24h"}})
    cluster = settled(pool)
    cluster.now = NOW + DAY - SECOND
    assert reason(only(cluster, pool)) is None
    cluster.now = NOW + DAY
    assert reason(only(cluster, pool)) is RetireReason.TOO_OLD
    assert only(cluster, pool).is_current


@pytest.mark.parametrize(("served", "expected"), [(9, None), (10, RetireReason.TOO_MANY_BUILDS)])
def test_builds_that_were_served_are_counted(served: int, expected: RetireReason | None) -> None:
    pool = a_pool(builders={"recycle": {"maxBuilds": 10}})
    cluster = settled(pool)
    cluster.served = {"ci-builder-0": served}
    assert reason(only(cluster, pool)) is expected


@pytest.mark.parametrize(
    ("memory", "expected"),
    [
        ({}, None),
        ({"ci-builder-0": 2**30}, None),
        ({"ci-builder-0": 2**30 + 1}, RetireReason.TOO_MUCH_MEMORY),
    ],
)
def test_memory_matters_where_somebody_measures_it(
    memory: dict[str, int], expected: RetireReason | None
) -> None:
    pool = a_pool(builders={"recycle": {"maxMemory": "1Gi"}})
    cluster = settled(pool)
    cluster.memory = memory
    assert reason(only(cluster, pool)) is expected


def test_without_limits_a_builder_stays_for_ever() -> None:
    cluster = settled(a_pool())
    cluster.served, cluster.memory = {"ci-builder-0": 10**6}, {"ci-builder-0": 2**40}
    cluster.now += 30 * DAY
    assert reason(only(cluster)) is None


# --- who has read the certificates ---------------------------------------------------------------


def read_by_everyone(cluster: MemoryCluster, pool: Pool) -> bool:
    return known(cluster, pool).everyone_runs


CACHED = a_pool(replicas=2, cache={"registry": {"managed": {}}})


def test_everyone_has_read_the_certificates_of_a_settled_pool() -> None:
    assert read_by_everyone(settled(CACHED), CACHED)


def test_a_pool_without_builders_and_cache_has_nobody_to_wait_for() -> None:
    pool = a_pool(replicas=0)
    assert read_by_everyone(settled(pool), pool)


def old(pod: Object) -> None:
    pod["metadata"]["annotations"][naming.ANNOTATION_REVISION] = "old"


def nameless(pod: Object) -> None:
    pod["metadata"]["annotations"] = None


@pytest.mark.parametrize("edit", [old, nameless])
@pytest.mark.parametrize("name", ["ci-builder-1", "ci-cache"])
def test_one_pod_of_another_revision_has_not_read_them(name: str, edit: Any) -> None:
    cluster = settled(CACHED)
    (pod,) = (pod for each, pod in cluster.pods.items() if each.startswith(name))
    edit(pod)
    assert not read_by_everyone(cluster, CACHED)


@pytest.mark.parametrize("name", ["ci-builder-1", "ci-cache"])
def test_a_pod_that_has_ended_will_never_read_them(name: str) -> None:
    cluster = settled(CACHED)
    (pod,) = (pod for each, pod in cluster.pods.items() if each.startswith(name))
    old(pod)
    pod["status"]["phase"] = "Failed"
    assert read_by_everyone(cluster, CACHED)


def test_a_pod_that_drains_is_waited_for_too() -> None:
    cluster = settled(CACHED)
    cluster.pods["late"] = a_pod("ci-builder-7", terminating=True)
    assert not read_by_everyone(cluster, CACHED)


def test_a_deployment_whose_pod_is_still_to_come_is_waited_for_too() -> None:
    cluster = settled(a_pool(replicas=2, builders=image("v1")))
    cluster.pods.clear()
    assert not read_by_everyone(cluster, a_pool(replicas=2, builders=image("v2")))


def test_deployments_of_others_are_not_waited_for() -> None:
    cluster = settled(CACHED)
    ref = Ref("Deployment", "builds", "ci-builder-9")
    cluster.objects[ref] = foreign(ref, spec={"template": {"metadata": {}}})
    cluster.objects[ref]["metadata"]["labels"] = {naming.LABEL_POOL: "ci"}
    assert read_by_everyone(cluster, CACHED)


# --- a builder is known by its name, whatever became of its labels -------------------------------


@pytest.mark.parametrize("label", [naming.LABEL_POOL, "app.kubernetes.io/component"])
def test_a_builder_whose_labels_somebody_took_off_stays_and_gets_them_back(label: str) -> None:
    pool = a_pool()
    cluster = settled(pool)
    seen = cluster.observe(pool)
    ref = Ref("Deployment", "builds", "ci-builder-0")
    live = deepcopy(dict(seen.live))
    del live[ref]["metadata"]["labels"][label]
    owner = {"kind": "Deployment", "name": ref.name, "uid": live[ref]["metadata"]["uid"]}
    replica_set = {
        "kind": "ReplicaSet",
        "metadata": {
            "name": "ci-builder-0-abc",
            "namespace": "builds",
            "uid": "rs",
            "labels": {"app.kubernetes.io/component": "builder", naming.LABEL_POOL: "ci"},
            "ownerReferences": [{**owner, "controller": True}],
        },
    }
    relabelled = replace(seen, live=live, replica_sets=(replica_set,))
    s, todo = planned(pool, relabelled, now=cluster.now)
    assert [member.name for member in s.members] == ["ci-builder-0"]
    assert todo.delete == ()
    assert [change.ref for change in todo.apply] == [ref]
    assert todo.apply[0].reason is EventReason.REPAIRED_DRIFT
    removal = plan_removal(a_situation(pool, relabelled))
    assert ref in [deletion.ref for deletion in removal.delete]
