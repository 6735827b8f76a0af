from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from buildpool.core import naming
from buildpool.core.api import EventReason, Pool, identify_pool
from buildpool.core.objects.refs import Object, Ref, maker_of
from buildpool.core.observed.observation import Observation
from buildpool.core.planning.certificates import clients_with_secrets
from buildpool.core.planning.plan import strays
from buildpool.core.planning.removal import Removal, plan_removal
from memory_cluster import MemoryCluster, settled
from samples import (
    HOME,
    OTHER_UID,
    a_pool,
    a_raw_pool,
    a_situation,
    clients,
    foreign,
    planned,
    specs,
)

BROKEN = {"builders": {"image": "r.example/buildkit:latest", "oops": 1}, "replicas": "many"}


def leaving(**overrides: object) -> Pool:
    """The pool as the controller sees it once it is deleted: its spec is of no account."""
    return identify_pool(a_raw_pool(**overrides))


def next_step(cluster: MemoryCluster, pool: Pool) -> Removal:
    removal = plan_removal(a_situation(pool, cluster.observe(pool)))
    cluster.act(removal)
    return removal


def kinds(removal: Removal) -> list[str]:
    return [deletion.ref.kind for deletion in removal.delete]


def test_first_go_service_and_builders_then_all_but_the_authority_then_the_authority() -> None:
    cluster = settled(
        a_pool(
            replicas=2,
            builders={"storage": {"volumeClaim": {"size": "10Gi"}}},
            access=clients("ana", "bob"),
        )
    )
    pool = leaving()

    first = next_step(cluster, pool)
    assert kinds(first) == ["Deployment", "Deployment", "Service"]
    assert [deletion.reason for deletion in first.delete] == [
        EventReason.REMOVED_BUILDER,
        EventReason.REMOVED_BUILDER,
        None,
    ]

    waiting = next_step(cluster, pool)
    assert waiting.delete == (), "a build may need its certificate and its volume"
    assert len(waiting.draining) == 2
    assert not waiting.is_done

    cluster.drain()
    rest = (*next_step(cluster, pool).delete, *next_step(cluster, pool).delete)
    assert sorted((d.ref.kind, d.ref.name) for d in rest) == [
        ("ConfigMap", "ci-builder"),
        ("PersistentVolumeClaim", "ci-builder-0"),
        ("PersistentVolumeClaim", "ci-builder-1"),
        ("PodDisruptionBudget", "ci-busy"),
        ("Secret", "ci-builder"),
        ("Secret", "ci-client-ana"),
        ("Secret", "ci-client-bob"),
    ]

    last = next_step(cluster, pool)
    assert [deletion.ref for deletion in last.delete] == [
        Ref("Secret", HOME, naming.authority(pool.key))
    ]
    assert not last.is_done
    assert next_step(cluster, pool).is_done
    assert cluster.objects == {}


@given(specs)
def test_nothing_of_a_pool_is_left(spec: dict[str, object]) -> None:
    cluster, pool = settled(a_pool(**spec)), leaving()
    for _ in range(5):
        next_step(cluster, pool)
        cluster.drain()
    assert next_step(cluster, pool) == Removal(delete=(), draining=())
    assert cluster.objects == {}


@given(specs)
def test_a_deletion_in_the_foreground_takes_nothing_that_a_build_needs(
    spec: dict[str, object],
) -> None:
    cluster, pool = settled(a_pool(**spec)), leaving()
    cluster.builds = {"ci-builder-0": 1}
    there = set(cluster.objects)
    cluster.collect(pool.uid)
    collected = there - set(cluster.objects)
    assert {ref.kind for ref in collected} <= {"Deployment", "Service"}
    cluster.drain()
    if any(name.startswith("ci-builder-0-") for name in cluster.pods):
        assert next_step(cluster, pool).delete == ()
        assert set(cluster.objects) == there - collected
    cluster.builds = {}
    for _ in range(5):
        cluster.drain()
        next_step(cluster, pool)
    assert cluster.objects == {}


@given(specs)
def test_only_what_goes_first_has_an_owner(spec: dict[str, object]) -> None:
    """Whatever has one, the garbage collector may remove at any moment."""
    cluster, pool = settled(a_pool(**spec)), leaving()
    first = {deletion.ref for deletion in next_step(settled(a_pool(**spec)), pool).delete}
    for ref, obj in cluster.objects.items():
        metadata = obj["metadata"]
        assert ("ownerReferences" in metadata) == (ref in first), ref
        assert maker_of(obj) == pool.uid, ref
        # GitOps tools take what has this label and no owner for what they have deployed.
        assert ("app.kubernetes.io/instance" in metadata["labels"]) == (ref in first), ref


@given(specs)
def test_a_deletion_that_leaves_behind_what_is_owned_leaves_nothing(
    spec: dict[str, object],
) -> None:
    """``--cascade=orphan``: the garbage collector takes the owner off, whenever it comes to it."""
    cluster, pool = settled(a_pool(**spec)), leaving()
    for obj in cluster.objects.values():
        obj["metadata"].pop("ownerReferences", None)
    for _ in range(5):
        next_step(cluster, pool)
        cluster.drain()
    assert next_step(cluster, pool) == Removal(delete=(), draining=())
    assert cluster.objects == {}


def test_builders_that_an_older_operator_has_made_get_their_mark_and_stay() -> None:
    pool, mark = a_pool(replicas=2), naming.ANNOTATION_POOL_UID
    cluster = settled(pool)
    builders = [cluster[f"Deployment/ci-builder-{n}"] for n in range(2)]
    for builder in builders:
        del builder["metadata"]["annotations"][mark]
        builder["metadata"]["annotations"][naming.ANNOTATION_APPLIED] = "of an older operator"
    pods = dict(cluster.pods)
    cluster.settle(pool)
    marks = [maker_of(cluster[f"Deployment/ci-builder-{n}"]) for n in range(2)]
    assert marks == [pool.uid, pool.uid]
    assert cluster.pods == pods


def test_what_a_namesake_has_left_is_noticed_and_what_is_foreign_is_not() -> None:
    cluster, pool = settled(a_pool()), a_pool()
    assert not a_situation(pool, cluster.observe(pool)).has_namesakes
    taken = cluster["ConfigMap/ci-builder"]["metadata"]["annotations"]
    del taken[naming.ANNOTATION_POOL_UID]
    assert not a_situation(pool, cluster.observe(pool)).has_namesakes
    taken[naming.ANNOTATION_POOL_UID] = OTHER_UID
    assert a_situation(pool, cluster.observe(pool)).has_namesakes


def test_what_was_restored_from_another_namespace_has_nobody_sweep() -> None:
    """The sweeper leaves it alone, and would be asked again and again."""
    cluster, pool = settled(a_pool()), a_pool()
    metadata = cluster["ConfigMap/ci-builder"]["metadata"]
    metadata["annotations"][naming.ANNOTATION_POOL_UID] = OTHER_UID
    metadata["labels"][naming.LABEL_POOL_NAMESPACE] = "elsewhere"
    s = a_situation(pool, cluster.observe(pool))
    assert not s.has_namesakes
    assert [ref.kind for ref in s.taken] == ["ConfigMap"], "and the pool says NameConflict"


@given(specs, st.lists(st.integers(0, 6), max_size=6))
def test_a_removal_that_was_broken_off_anywhere_is_finished(
    spec: dict[str, object], carried_out: list[int]
) -> None:
    """Secrets may not be listed: what tells of them goes after them."""
    cluster, pool = settled(a_pool(**spec)), leaving()
    for count in carried_out:
        step = plan_removal(a_situation(pool, cluster.observe(pool)))
        cluster.act(Removal(delete=step.delete[:count], draining=()))
        cluster.drain()
    for _ in range(5):
        next_step(cluster, pool)
        cluster.drain()
    assert cluster.objects == {}


def test_a_pool_with_a_broken_spec_can_be_deleted_too() -> None:
    cluster = settled(a_pool(replicas=3, access=clients("ana")))
    pool = leaving(**BROKEN)
    for _ in range(5):
        next_step(cluster, pool)
        cluster.drain()
    assert cluster.objects == {}


def test_clients_secrets_are_found_though_the_authority_that_notes_them_is_gone() -> None:
    cluster = settled(a_pool(access=clients("ana", "bob")))
    pool = cluster.known(leaving())
    del cluster.objects[Ref("Secret", HOME, naming.authority(pool.key))]
    for _ in range(5):
        next_step(cluster, pool)
        cluster.drain()
    assert cluster.objects == {}


def test_a_client_is_let_go_though_the_authority_that_notes_it_is_gone() -> None:
    cluster = settled(a_pool(access=clients("ana", "bob")))
    del cluster.objects[Ref("Secret", HOME, naming.authority(a_pool().key))]
    cluster.settle(a_pool(access=clients("ana")))
    assert cluster.names("Secret") == ["authority.builds.ci", "ci-builder", "ci-client-ana"]


@pytest.mark.parametrize("name", ["../../pods", "a/b", "a%2fb", "Ana", "..", "a?watch=1", "a\n"])
def test_a_status_that_names_odd_clients_has_nothing_else_looked_at(name: str) -> None:
    client = {"name": name, "secret": "x", "notAfter": "2026-01-01T00:00:00Z"}
    pool = identify_pool({**a_raw_pool(), "status": {"clients": [client]}})
    assert [each.name for each in pool.status.clients] == [name]
    assert clients_with_secrets(pool, None) == frozenset()


def test_what_a_rollout_and_a_smaller_pool_left_behind_goes_too() -> None:
    persistent = {"storage": {"volumeClaim": {"size": "10Gi"}}}
    cluster = settled(a_pool(replicas=3, builders=persistent))
    cluster.settle(a_pool(replicas=1, builders=persistent | {"image": "r.example/buildkit:v2"}))
    pool = leaving()
    for _ in range(5):
        next_step(cluster, pool)
        cluster.drain()
    assert cluster.objects == {}


def test_a_build_keeps_what_it_needs_until_it_ends() -> None:
    cluster, pool = settled(a_pool(replicas=2)), leaving()
    cluster.builds = {"ci-builder-1": 1}
    next_step(cluster, pool)
    cluster.drain()
    waiting = next_step(cluster, pool)
    assert waiting.delete == ()
    assert [name.rpartition("-")[0] for name in waiting.draining] == ["ci-builder-1"]
    cluster.builds = {}
    cluster.drain()
    assert next_step(cluster, pool).delete


def test_until_builders_are_drained_nobody_gets_past_the_gateway() -> None:
    cluster, pool = settled(a_pool(replicas=1, routing="Gateway")), leaving()
    cluster.builds = {"ci-builder-0": 1}
    next_step(cluster, pool)
    next_step(cluster, pool)
    assert cluster.names("NetworkPolicy") == ["ci-builder"]
    cluster.builds = {}
    cluster.drain()
    next_step(cluster, pool)
    next_step(cluster, pool)
    assert cluster.names("NetworkPolicy") == []


def test_what_belongs_to_others_stays() -> None:
    cluster, pool = settled(a_pool()), leaving()
    theirs = [
        Ref("Secret", "builds", "ci-client-ana"),
        Ref("Service", "builds", "other"),
        Ref("Deployment", "builds", "their-builder"),
    ]
    live = dict(cluster.observe(pool).live)
    live |= {theirs[0]: foreign(theirs[0]), theirs[1]: foreign(theirs[1])}
    live |= {theirs[2]: foreign(theirs[2], uid=OTHER_UID)}
    touched: set[Ref] = set()
    for _ in range(5):
        removal = plan_removal(a_situation(pool, Observation(live=live)))
        touched |= {deletion.ref for deletion in removal.delete}
        live = {ref: obj for ref, obj in live.items() if ref not in touched}
    assert set(live) == set(theirs)


def test_what_is_on_its_way_out_is_not_deleted_again() -> None:
    cluster, pool = settled(a_pool()), leaving()
    cluster["Service/ci"]["metadata"]["deletionTimestamp"] = "2026-01-01T12:00:00Z"
    assert kinds(plan_removal(a_situation(pool, cluster.observe(pool)))) == ["Deployment"]


def test_a_deletion_names_the_very_object_it_means() -> None:
    cluster, pool = settled(a_pool()), leaving()
    removal = plan_removal(a_situation(pool, cluster.observe(pool)))
    assert {d.ref: d.uid for d in removal.delete} == {
        d.ref: cluster.objects[d.ref]["metadata"]["uid"] for d in removal.delete
    }


def test_a_pool_that_never_had_anything_is_done_at_once() -> None:
    assert plan_removal(a_situation(leaving(), Observation())).is_done


def test_what_is_left_of_a_deployment_that_is_gone_goes_too() -> None:
    """The garbage collector overlooks it where another one took its name in the meantime."""
    cluster = settled(a_pool(replicas=1))
    (deployment,) = (obj for ref, obj in cluster.objects.items() if ref.kind == "Deployment")
    labels = deployment["spec"]["template"]["metadata"]["labels"]

    def a_replica_set(name: str, *owners: dict[str, object]) -> Object:
        metadata = {"name": name, "namespace": "builds", "uid": f"uid of {name}", "labels": labels}
        return {"kind": "ReplicaSet", "metadata": {**metadata, "ownerReferences": list(owners)}}

    present = {
        "kind": "Deployment",
        "uid": deployment["metadata"]["uid"],
        "controller": True,
    }
    gone = {**present, "uid": "of one before"}
    going = a_replica_set("going", gone)
    going["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    observation = replace(
        cluster.observe(leaving()),
        replica_sets=(
            a_replica_set("in-use", present),
            a_replica_set("left", gone),
            a_replica_set("to-be-adopted"),
            a_replica_set("of-others", {**gone, "kind": "Rollout"}),
            going,
        ),
    )
    left = Ref("ReplicaSet", "builds", "left")
    assert [deletion.ref for deletion in strays(observation)] == [left]
    assert left in [d.ref for d in plan_removal(a_situation(leaving(), observation)).delete]
    _, todo = planned(a_pool(replicas=1), observation)
    assert [deletion.ref for deletion in todo.delete] == [left]
