"""Plans as such: complete, repeatable, mindful of what belongs to others; and a pool's clients."""

from __future__ import annotations

import pytest
from hypothesis import given

from buildpool.core import naming
from buildpool.core.api import EventReason, Routing
from buildpool.core.objects.refs import JSON, Object, Ref, is_builder, is_owned
from buildpool.core.pki import CertificateReason, Change
from buildpool.core.planning.issuances import carry_out
from buildpool.core.planning.names import desired_refs, optional_refs
from buildpool.core.planning.plan import GRACE, RESYNC, plan, plan_flow
from memory_cluster import MemoryCluster, settled
from plans import PERSISTENT, applied, asked, created
from samples import (
    HOME,
    INSTALLATION,
    OTHER_UID,
    a_pool,
    a_situation,
    an_observation,
    clients,
    foreign,
    planned,
    specs,
)
from unit.passes import CERTIFICATES, judged, says

AUTHORITY = Ref("Secret", HOME, "authority.builds.ci")


def names_of(cluster: MemoryCluster) -> set[Ref]:
    """What is there beside builders and their volumes."""
    return {
        ref
        for ref, obj in cluster.objects.items()
        if naming.LABEL_BUILDER not in obj["metadata"]["labels"]
    }


def builders_of(cluster: MemoryCluster) -> list[str]:
    return [ref.name for ref, obj in sorted(cluster.objects.items()) if is_builder(obj)]


# --- what a plan is ------------------------------------------------------------------------------


@given(specs)
def test_the_same_question_gets_the_same_answer(spec: dict[str, object]) -> None:
    pool = a_pool(**spec)
    situation, todo = planned(pool)
    assert plan(situation) == todo


@given(specs)
def test_after_a_plan_is_carried_out_nothing_is_left_to_do(spec: dict[str, object]) -> None:
    pool = a_pool(**spec)
    cluster = settled(pool)
    todo = cluster.plan(pool)
    assert todo.is_empty
    # No pod of a gateway is ready here: a pool that needs one counts as stalled after a while.
    longest = GRACE if pool.spec.routing is Routing.GATEWAY else RESYNC
    assert longest / 2 < todo.recheck <= longest
    assert names_of(cluster) == set(desired_refs(pool, INSTALLATION))
    assert builders_of(cluster) == [
        naming.builder(pool.key, index) for index in range(pool.spec.builder_count)
    ]


@given(specs, specs)
def test_whatever_a_pool_was_before_it_becomes_what_its_spec_says(
    before: dict[str, object], after: dict[str, object]
) -> None:
    cluster = settled(a_pool(**before))
    pool = a_pool(**after)
    cluster.settle(pool)
    cluster.now += pool.spec.scaling.idle_after
    cluster.settle(pool)
    assert len(builders_of(cluster)) == pool.spec.builder_count
    assert names_of(cluster) == set(desired_refs(pool, INSTALLATION))
    fresh = settled(pool)
    for ref in names_of(cluster):
        # Ours were dropped with all we once applied: nothing of the former spec lingers.
        assert content(cluster.objects[ref]) == content(fresh.objects[ref])


def content(obj: Object) -> Object:
    """What it is, whatever the order in which lists were merged; other keys are in every Secret."""
    match obj["kind"]:
        case "Secret":
            return {"keys": sorted(obj["data"])}
        case "Deployment":
            found: Object = in_order(obj["spec"]["template"]["spec"])
            return found
    return {"spec": in_order(obj.get("spec")), "data": obj.get("data")}


def in_order(value: JSON) -> JSON:
    if isinstance(value, dict):
        return {key: in_order(entry) for key, entry in value.items()}
    return sorted(map(in_order, value), key=repr) if isinstance(value, list) else value


@given(specs)
def test_no_object_of_a_plan_shares_a_part_with_another(spec: dict[str, object]) -> None:
    _, todo = planned(a_pool(**spec))
    parts: list[int] = []
    for change in todo.apply:
        parts += sorted(set(mutable_parts(change.object)))
    assert len(parts) == len(set(parts))


def mutable_parts(value: object) -> list[int]:
    if isinstance(value, dict):
        return [id(value), *(part for entry in value.values() for part in mutable_parts(entry))]
    if isinstance(value, list):
        return [id(value), *(part for entry in value for part in mutable_parts(entry))]
    return []


# --- what comes first ----------------------------------------------------------------------------


def test_an_authority_is_asked_for_first_then_the_certificates_then_the_objects() -> None:
    pool = a_pool(access=clients("ana", "bob"))

    flow = plan_flow(a_situation(pool))
    first = next(flow)
    assert [(i.secret, i.what) for i in first.issuances] == [(AUTHORITY, Change.CREATE)]
    assert first.authority is None

    issued = carry_out(first)
    second = flow.send(issued)
    names = [i.secret.name for i in second.issuances]
    assert names == ["ci-builder", "ci-client-ana", "ci-client-bob"]
    assert {i.why.reason for i in second.issuances} == {CertificateReason.MISSING}
    assert second.authority == issued[AUTHORITY]

    with pytest.raises(StopIteration) as end:
        flow.send(carry_out(second))
    _, third = end.value.value
    assert applied(third) == [
        "Secret/authority.builds.ci",
        "Secret/ci-builder",
        "Secret/ci-client-ana",
        "Secret/ci-client-bob",
        "ConfigMap/ci-builder",
        "Service/ci",
        "PodDisruptionBudget/ci-busy",
        "Deployment/ci-builder-0",
    ]


def test_a_volume_comes_before_the_builder_that_needs_it() -> None:
    _, todo = planned(a_pool(replicas=2, builders=PERSISTENT))
    assert applied(todo)[-4:] == [
        "PersistentVolumeClaim/ci-builder-0",
        "Deployment/ci-builder-0",
        "PersistentVolumeClaim/ci-builder-1",
        "Deployment/ci-builder-1",
    ]


def test_what_is_created_is_told_where_it_interests_the_user() -> None:
    _, todo = planned(a_pool())
    told = {change.ref.kind: (change.reason, change.message) for change in todo.apply}
    assert told["Deployment"] == (
        EventReason.CREATED_BUILDER,
        "created Deployment builds/ci-builder-0",
    )
    assert told["Secret"][0] is EventReason.ISSUED_CERTIFICATE
    assert told["ConfigMap"][0] is told["Service"][0] is None


# --- what belongs to others ----------------------------------------------------------------------


GATED = a_pool(replicas=1, builders=PERSISTENT, routing="Gateway")


NEEDED = [r for r in desired_refs(GATED, INSTALLATION) if r not in optional_refs(GATED)]


@pytest.mark.parametrize("ref", NEEDED)
def test_a_name_that_belongs_to_somebody_else_stops_everything(ref: Ref) -> None:
    todo = asked(GATED, an_observation(foreign(ref)))
    assert todo.conflicts == (ref,)
    assert todo.is_blocked
    assert todo.mark == todo.apply == todo.delete == ()
    assert not todo.is_empty


def test_a_name_that_nothing_else_needs_is_left_out_and_all_else_goes_on() -> None:
    pool = a_pool(access=clients("ana", "bob"))
    taken = Ref("Secret", "builds", "ci-client-bob")
    todo = asked(pool, an_observation(foreign(taken)))
    assert todo.conflicts == (taken,)
    assert not todo.is_blocked
    assert "Secret/ci-client-ana" in applied(todo)
    assert "Secret/ci-client-bob" not in applied(todo)
    assert created(todo) == ["ci-builder-0"]
    verdict = judged(pool, an_observation(foreign(taken)))
    assert says(verdict, CERTIFICATES) == ("False", "NameConflict")


def test_who_is_busy_is_marked_also_while_a_name_is_taken() -> None:
    pool = a_pool()
    cluster = settled(pool)
    cluster.builds["ci-builder-0"] = 1
    service = Ref("Service", "builds", "ci")
    cluster.objects[service] = foreign(service)
    todo = asked(pool, cluster.observe(pool))
    assert todo.is_blocked
    assert [mark.ref.kind for mark in todo.mark] == ["Pod"]


def test_what_a_namesake_left_behind_is_not_taken_over() -> None:
    cluster = settled(a_pool(uid=OTHER_UID))
    pool = a_pool()
    todo = asked(pool, cluster.observe(pool))
    assert set(todo.conflicts) == names_of(cluster)
    assert todo.mark == todo.apply == todo.delete == ()
    assert a_situation(pool, cluster.observe(pool)).members == (), "its builder is none of ours"


def test_while_a_builder_of_a_namesake_goes_its_number_is_not_given_again() -> None:
    theirs = settled(a_pool(uid=OTHER_UID, builders=PERSISTENT))
    cluster = MemoryCluster(pods=dict(theirs.pods))
    ref = Ref("Deployment", "builds", "ci-builder-0")
    cluster.objects[ref] = theirs.objects[ref]
    pool = a_pool()
    cluster.settle(pool)
    assert builders_of(cluster) == ["ci-builder-0", "ci-builder-1"]
    assert not is_owned(cluster.objects[ref], pool)


def test_an_object_of_others_under_our_label_is_left_alone() -> None:
    pool = a_pool()
    cluster = settled(pool)
    theirs = foreign(Ref("Deployment", "builds", "theirs"), spec={}, status={})
    theirs["metadata"]["labels"] = {naming.LABEL_POOL: "ci"}
    cluster.objects[Ref("Deployment", "builds", "theirs")] = theirs
    assert cluster.plan(pool).is_empty


def test_only_of_new_builders_nobody_knows_yet_whether_the_name_is_taken() -> None:
    _, todo = planned(a_pool(replicas=2, builders=PERSISTENT))
    unseen = {change.ref for change in todo.apply if change.is_unseen}
    assert unseen == {
        Ref(kind, "builds", name)
        for kind in ("Deployment", "PersistentVolumeClaim")
        for name in ("ci-builder-0", "ci-builder-1")
    }


def test_a_deployment_of_others_with_the_name_of_a_builder_is_not_taken_over() -> None:
    ref = Ref("Deployment", "builds", "ci-builder-0")
    theirs = foreign(ref, spec={"replicas": 0, "strategy": {"type": "Recreate"}}, status={})
    theirs["spec"] |= {"selector": {"matchLabels": {"app": "x"}}, "template": {"metadata": {}}}
    cluster = MemoryCluster(objects={ref: theirs})
    _, todo = planned(a_pool(), cluster.observe(a_pool()))
    assert created(todo) == ["ci-builder-0"], "it has no label of ours, so nobody has seen it"
    cluster.act(todo)
    assert cluster.objects[ref] is theirs


# --- what is on its way out ----------------------------------------------------------------------


def leaving(cluster: MemoryCluster, name: str) -> None:
    cluster[name]["metadata"]["deletionTimestamp"] = "2026-01-01T12:00:00Z"


def test_an_object_on_its_way_out_is_left_alone_until_it_is_gone() -> None:
    pool = a_pool()
    cluster = settled(pool)
    leaving(cluster, "Service/ci")
    cluster["Service/ci"]["spec"]["ports"] = []
    assert cluster.plan(pool).is_empty
    del cluster.objects[Ref("Service", "builds", "ci")]
    assert applied(cluster.step(pool)) == ["Service/ci"]


def test_a_builder_on_its_way_out_is_left_alone_and_replaced_at_once() -> None:
    pool = a_pool()
    cluster = settled(pool)
    leaving(cluster, "Deployment/ci-builder-0")
    todo = cluster.plan(pool)
    assert applied(todo) == ["Deployment/ci-builder-1"], "its name is not free yet"
    assert todo.mark == todo.delete == ()


def test_a_surplus_builder_on_its_way_out_is_not_touched_again() -> None:
    cluster = settled(a_pool(replicas=2))
    leaving(cluster, "Deployment/ci-builder-1")
    assert cluster.plan(a_pool(replicas=1)).is_empty


# --- clients -------------------------------------------------------------------------------------


def noted(cluster: MemoryCluster) -> str:
    annotations = cluster[f"Secret/{AUTHORITY.name}"]["metadata"]["annotations"]
    found: str = annotations[naming.ANNOTATION_CLIENTS]
    return found


def test_a_removed_client_stays_noted_until_its_secret_is_gone() -> None:
    cluster = settled(a_pool(access=clients("ana", "bob")))
    assert noted(cluster) == "ana,bob"
    pool = a_pool(access=clients("ana"))

    first = cluster.step(pool)
    assert [(d.ref.name, d.reason) for d in first.delete] == [
        ("ci-client-bob", EventReason.REMOVED_CLIENT)
    ]
    assert noted(cluster) == "ana,bob", "a crash between note and delete must not lose the Secret"

    second = cluster.step(pool)
    assert applied(second) == [f"Secret/{AUTHORITY.name}"]
    assert noted(cluster) == "ana"
    assert cluster.settle(pool) == []


def test_a_new_client_is_noted_before_it_has_a_secret() -> None:
    cluster = settled(a_pool(access=clients("ana")))
    todo = cluster.step(a_pool(access=clients("ana", "bob")))
    assert applied(todo) == [f"Secret/{AUTHORITY.name}", "Secret/ci-client-bob"]


def test_a_removed_client_costs_no_builder_its_pod() -> None:
    cluster = settled(a_pool(access=clients("ana", "bob")))
    for todo in cluster.settle(a_pool(access=clients("ana"))):
        assert not any(is_builder(change.object) for change in todo.apply)
        assert todo.mark == ()
