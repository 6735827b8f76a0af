from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta

import pytest
from hypothesis import given

from buildpool import naming
from buildpool.api import EventReason, Pool
from buildpool.certificates import bundle_at, certificate_requests
from buildpool.observation import Observation
from buildpool.pki import CertificateReason, issue_authority, read, renew_at
from buildpool.plan import RESYNC, Plan, plan
from buildpool.resources import JSON, Object, Ref, bundle_of, pair_of
from buildpool.wanted import wanted_refs
from memory_cluster import MemoryCluster, settled
from samples import (
    DAY,
    HOME,
    NOW,
    OTHER_UID,
    OWN_IMAGE,
    a_pool,
    an_observation,
    clients,
    foreign,
    planned,
    specs,
)

AUTHORITY = Ref("Secret", HOME, "authority.builds.ci")
PERSISTENT = {"storage": {"volumeClaim": {"size": "10Gi"}}}


def image(tag: str, **builders: object) -> dict[str, object]:
    return {"image": f"r.example/buildkit:{tag}", **builders}


def asked(pool: Pool, observation: Observation, now: datetime = NOW) -> Plan:
    return plan(pool, observation, home=HOME, image=OWN_IMAGE, now=now)


def applied(todo: Plan) -> list[str]:
    return [f"{change.ref.kind}/{change.ref.name}" for change in todo.apply]


def deleted(todo: Plan) -> list[str]:
    return [f"{deletion.ref.kind}/{deletion.ref.name}" for deletion in todo.delete]


def container(deployment: Object) -> Object:
    found: Object = deployment["spec"]["template"]["spec"]["containers"][0]
    return found


# --- what a plan is ------------------------------------------------------------------------------


@given(specs)
def test_the_same_question_gets_the_same_answer(spec: dict[str, object]) -> None:
    pool = a_pool(**spec)
    observation, todo = planned(pool)
    assert asked(pool, observation) == todo


@given(specs)
def test_after_a_plan_is_carried_out_nothing_is_left_to_do(spec: dict[str, object]) -> None:
    pool = a_pool(**spec)
    cluster = settled(pool)
    observation = cluster.observe(pool)
    assert asked(pool, observation) == Plan(recheck=RESYNC)
    assert set(observation.live) == set(wanted_refs(pool, home=HOME))


@given(specs, specs)
def test_whatever_a_pool_was_before_it_becomes_what_its_spec_says(
    before: dict[str, object], after: dict[str, object]
) -> None:
    cluster = settled(a_pool(**before))
    pool = a_pool(**after)
    cluster.settle(pool)
    assert set(cluster.objects) == set(wanted_refs(pool, home=HOME))
    fresh = settled(pool)
    for index in range(pool.spec.builder_count):
        name = f"Deployment/{naming.builder(pool.key, index)}"
        # Ours were dropped with all we once applied: nothing of the former spec lingers.
        assert pod_spec(cluster[name]) == pod_spec(fresh[name])


def pod_spec(deployment: Object) -> Object:
    """What its pod is, whatever the order in which lists were merged."""
    found: Object = in_order(deployment["spec"]["template"]["spec"])
    return found


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

    first = asked(pool, Observation())
    assert [(i.secret, i.request) for i in first.issue] == [(AUTHORITY, None)]
    assert first.apply == first.delete == first.conflicts == ()

    authority = issue_authority("ci", now=NOW, lifetime=3650 * DAY)
    second = asked(pool, Observation(issued={AUTHORITY: authority}))
    assert [i.secret.name for i in second.issue] == ["ci-builder", "ci-client-ana", "ci-client-bob"]
    assert {i.reason for i in second.issue} == {CertificateReason.MISSING}
    assert second.apply == second.delete == ()

    _, third = planned(pool)
    assert third.issue == ()
    assert applied(third) == [
        "Secret/authority.builds.ci",
        "Secret/ci-builder",
        "Secret/ci-client-ana",
        "Secret/ci-client-bob",
        "ConfigMap/ci-builder",
        "Service/ci",
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


@pytest.mark.parametrize("ref", wanted_refs(a_pool(replicas=1, builders=PERSISTENT), home=HOME))
def test_a_name_that_belongs_to_somebody_else_stops_everything(ref: Ref) -> None:
    pool = a_pool(builders=PERSISTENT)
    todo = asked(pool, an_observation(foreign(ref)))
    assert todo.conflicts == (ref,)
    assert todo.issue == todo.apply == todo.delete == ()
    assert todo.recheck < RESYNC, "when it is gone, nothing may tell us"


def test_what_a_namesake_left_behind_is_not_taken_over() -> None:
    cluster = settled(a_pool(uid=OTHER_UID))
    pool = a_pool()
    todo = asked(pool, cluster.observe(pool))
    assert set(todo.conflicts) == set(cluster.objects)
    assert todo.apply == todo.delete == todo.issue == ()


def test_an_object_of_others_under_our_label_is_left_alone() -> None:
    pool = a_pool()
    cluster = settled(pool)
    theirs = foreign(Ref("Deployment", "builds", "theirs"), spec={}, status={})
    theirs["metadata"]["labels"] = {naming.LABEL_POOL: "ci"}
    cluster.objects[Ref("Deployment", "builds", "theirs")] = theirs
    assert asked(pool, cluster.observe(pool)) == Plan(recheck=RESYNC)


# --- drift ---------------------------------------------------------------------------------------


def other_image(cluster: MemoryCluster) -> None:
    container(cluster["Deployment/ci-builder-0"])["image"] = "evil/image:v1"


def scaled_to_zero(cluster: MemoryCluster) -> None:
    cluster["Deployment/ci-builder-0"]["spec"]["replicas"] = 0


def emptied_config(cluster: MemoryCluster) -> None:
    cluster["ConfigMap/ci-builder"]["data"]["buildkitd.toml"] = ""


def a_selector_that_selects_nothing(cluster: MemoryCluster) -> None:
    cluster["Service/ci"]["spec"]["selector"]["app"] = "mine"


def lost_label(cluster: MemoryCluster) -> None:
    del cluster["Service/ci"]["metadata"]["labels"][naming.LABEL_POOL]


def no_more_user_namespace(cluster: MemoryCluster) -> None:
    del cluster["Deployment/ci-builder-0"]["spec"]["template"]["spec"]["hostUsers"]


DRIFT = {
    "another image": (
        other_image,
        "Deployment builds/ci-builder-0",
        "spec.template.spec.containers[buildkitd].image",
    ),
    "scaled by hand": (scaled_to_zero, "Deployment builds/ci-builder-0", "spec.replicas"),
    "an emptied file": (emptied_config, "ConfigMap builds/ci-builder", "data.buildkitd.toml"),
    "one more label to select by": (
        a_selector_that_selects_nothing,
        "Service builds/ci",
        "spec.selector.app",
    ),
    "a label taken off": (
        lost_label,
        "Service builds/ci",
        f"metadata.labels.{naming.LABEL_POOL}",
    ),
    "the user namespace turned off": (
        no_more_user_namespace,
        "Deployment builds/ci-builder-0",
        "spec.template.spec.hostUsers",
    ),
}


@pytest.mark.parametrize(("edit", "ref", "path"), DRIFT.values(), ids=DRIFT)
def test_what_somebody_changed_is_put_right(
    edit: Callable[[MemoryCluster], None], ref: str, path: str
) -> None:
    pool = a_pool(builders={"security": "UserNamespace"})
    cluster = settled(pool)
    edit(cluster)
    todo = cluster.step(pool)
    assert [(c.reason, c.message) for c in todo.apply] == [
        (
            EventReason.REPAIRED_DRIFT,
            f"{ref} had been changed at {path} by somebody else and was put right",
        )
    ]
    assert cluster.settle(pool) == []


@pytest.mark.parametrize(("edit", "ref", "path"), DRIFT.values(), ids=DRIFT)
def test_what_the_cluster_itself_changes_is_not_written_over(
    edit: Callable[[MemoryCluster], None], ref: str, path: str
) -> None:
    pool = a_pool(builders={"security": "UserNamespace"})
    cluster = settled(pool)
    edit(cluster)
    observation = cluster.observe(pool)
    (changed,) = (found for found in observation.live if str(found) == ref)
    assert asked(pool, replace(observation, overruled={changed: path})).apply == ()
    elsewhere = {changed: "spec.somewhere.else"}
    assert [c.ref for c in asked(pool, replace(observation, overruled=elsewhere)).apply] == [
        changed
    ]


def extra_variable(cluster: MemoryCluster) -> None:
    container(cluster["Deployment/ci-builder-0"])["env"] = [{"name": "THEIRS", "value": "1"}]


def restarted(cluster: MemoryCluster) -> None:
    template = cluster["Deployment/ci-builder-0"]["spec"]["template"]["metadata"]
    template["annotations"]["kubectl.kubernetes.io/restartedAt"] = "2026-01-01T12:00:00Z"


def labelled(cluster: MemoryCluster) -> None:
    cluster["Service/ci"]["metadata"]["labels"]["team"] = "theirs"


def sidecar(cluster: MemoryCluster) -> None:
    pod = cluster["Deployment/ci-builder-0"]["spec"]["template"]["spec"]
    pod["containers"].insert(0, {"name": "proxy", "image": "proxy:v1"})


def another_port(cluster: MemoryCluster) -> None:
    cluster["Service/ci"]["spec"]["ports"].append({"name": "theirs", "port": 80})


@pytest.mark.parametrize("edit", [extra_variable, restarted, labelled, sidecar, another_port])
def test_what_others_add_is_none_of_our_business(edit: Callable[[MemoryCluster], None]) -> None:
    pool = a_pool()
    cluster = settled(pool)
    edit(cluster)
    assert cluster.settle(pool) == []


DROPPED = {
    "a node selector": {"nodeSelector": {"disk": "ssd"}},
    "an environment variable": {"env": [{"name": "HTTPS_PROXY", "value": "http://proxy"}]},
    "a service account": {"serviceAccountName": "builder"},
    "a toleration": {"tolerations": [{"key": "builds"}]},
    "a pod label": {"podLabels": {"team": "a"}},
    "a pod annotation": {"podAnnotations": {"note": "x"}},
}


@pytest.mark.parametrize("builders", DROPPED.values(), ids=DROPPED)
def test_a_field_that_is_no_longer_wanted_goes_one_builder_at_a_time(
    builders: dict[str, object],
) -> None:
    cluster = settled(a_pool(replicas=2, builders=builders))
    pool = a_pool(replicas=2)
    plans = cluster.settle(pool)
    assert [applied(todo) for todo in plans] == [
        ["Deployment/ci-builder-0"],
        ["Deployment/ci-builder-1"],
    ]
    name = "Deployment/ci-builder-1"
    assert pod_spec(cluster[name]) == pod_spec(settled(pool)[name])


def test_an_object_on_its_way_out_is_left_alone_until_it_is_gone() -> None:
    pool = a_pool()
    cluster = settled(pool)
    cluster["Deployment/ci-builder-0"]["metadata"]["deletionTimestamp"] = "2026-01-01T12:00:00Z"
    container(cluster["Deployment/ci-builder-0"])["image"] = "evil/image:v1"
    assert asked(pool, cluster.observe(pool)) == Plan(recheck=RESYNC)
    del cluster.objects[Ref("Deployment", "builds", "ci-builder-0")]
    assert applied(cluster.step(pool)) == ["Deployment/ci-builder-0"]


def test_a_surplus_object_on_its_way_out_is_not_deleted_again() -> None:
    cluster = settled(a_pool(replicas=2))
    cluster["Deployment/ci-builder-1"]["metadata"]["deletionTimestamp"] = "2026-01-01T12:00:00Z"
    pool = a_pool(replicas=1)
    assert asked(pool, cluster.observe(pool)).delete == ()


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
    before = cluster["Deployment/ci-builder-0"]["metadata"]["resourceVersion"]
    cluster.settle(a_pool(access=clients("ana")))
    assert cluster["Deployment/ci-builder-0"]["metadata"]["resourceVersion"] == before


# --- how many ------------------------------------------------------------------------------------


def test_scaling_down_removes_the_highest_builders_and_nothing_else() -> None:
    cluster = settled(a_pool(replicas=4, builders=PERSISTENT))
    todo = cluster.step(a_pool(replicas=2, builders=PERSISTENT))
    assert applied(todo) == []
    assert deleted(todo) == [
        "Deployment/ci-builder-2",
        "Deployment/ci-builder-3",
        "PersistentVolumeClaim/ci-builder-2",
        "PersistentVolumeClaim/ci-builder-3",
    ]
    assert [d.reason for d in todo.delete] == [EventReason.REMOVED_BUILDER] * 2 + [None] * 2


def test_scaling_up_adds_all_builders_at_once() -> None:
    cluster = settled(a_pool(replicas=1))
    assert applied(cluster.step(a_pool(replicas=4))) == [
        "Deployment/ci-builder-1",
        "Deployment/ci-builder-2",
        "Deployment/ci-builder-3",
    ]


# --- rolling out ---------------------------------------------------------------------------------


@pytest.mark.parametrize("builders", [{}, PERSISTENT], ids=["ephemeral", "persistent"])
def test_a_new_image_rolls_one_builder_at_a_time(builders: dict[str, object]) -> None:
    cluster = settled(a_pool(replicas=3, builders=image("v1", **builders)))
    pool = a_pool(replicas=3, builders=image("v2", **builders))
    assert [applied(todo) for todo in cluster.settle(pool)] == [
        ["Deployment/ci-builder-0"],
        ["Deployment/ci-builder-1"],
        ["Deployment/ci-builder-2"],
    ]


def test_a_builder_that_is_replaced_is_told_as_that_and_not_as_drift() -> None:
    cluster = settled(a_pool(builders=image("v1")))
    (change,) = cluster.step(a_pool(builders=image("v2"))).apply
    assert change.reason is EventReason.REPLACED_BUILDER
    assert change.message == "updated Deployment builds/ci-builder-0"


def test_the_next_builder_waits_until_this_one_serves() -> None:
    cluster = settled(a_pool(replicas=2, builders=image("v1")))
    pool = a_pool(replicas=2, builders=image("v2"))
    cluster.act(asked(pool, cluster.observe(pool)))  # the controllers have not seen it yet
    assert asked(pool, cluster.observe(pool)).apply == ()
    cluster.roll()
    assert applied(asked(pool, cluster.observe(pool))) == ["Deployment/ci-builder-1"]


@pytest.mark.parametrize("builders", [{}, PERSISTENT], ids=["ephemeral", "persistent"])
def test_a_bad_revision_stops_at_the_first_builder_and_can_be_mended(
    builders: dict[str, object],
) -> None:
    cluster = settled(a_pool(replicas=3, builders=image("v1", **builders)))
    cluster.bad_images = {"r.example/buildkit:v2"}
    bad = a_pool(replicas=3, builders=image("v2", **builders))
    assert [applied(todo) for todo in cluster.settle(bad)] == [["Deployment/ci-builder-0"]]

    mended = a_pool(replicas=3, builders=image("v3", **builders))
    assert [applied(todo) for todo in cluster.settle(mended)] == [
        ["Deployment/ci-builder-0"],
        ["Deployment/ci-builder-1"],
        ["Deployment/ci-builder-2"],
    ]


def test_a_bad_revision_can_be_taken_back() -> None:
    before = a_pool(replicas=2, builders=image("v1"))
    cluster = settled(before)
    cluster.bad_images = {"r.example/buildkit:v2"}
    cluster.settle(a_pool(replicas=2, builders=image("v2")))
    assert [applied(todo) for todo in cluster.settle(before)] == [["Deployment/ci-builder-0"]]


def test_builders_that_do_not_serve_go_first_and_together() -> None:
    cluster = settled(a_pool(replicas=4, builders=image("v1")))
    cluster.full = {"ci-builder-1", "ci-builder-3"}
    cluster.roll()
    pool = a_pool(replicas=4, builders=image("v2"))
    cluster.full = {"ci-builder-3"}
    assert applied(cluster.step(pool)) == ["Deployment/ci-builder-1", "Deployment/ci-builder-3"]


def test_a_builder_without_a_node_does_not_keep_the_others_from_a_new_certificate() -> None:
    pool = a_pool(replicas=3)
    cluster = MemoryCluster(full={"ci-builder-2"})
    cluster.settle(pool)
    cluster.now = NOW + 61 * DAY
    assert [applied(todo)[-1] for todo in cluster.settle(pool)] == [
        "Deployment/ci-builder-2",
        "Deployment/ci-builder-0",
        "Deployment/ci-builder-1",
    ]


def test_new_builders_wait_for_nobody() -> None:
    cluster = settled(a_pool(replicas=2, builders=image("v1")))
    todo = cluster.step(a_pool(replicas=3, builders=image("v2")))
    assert applied(todo) == ["Deployment/ci-builder-0", "Deployment/ci-builder-2"]


def test_a_change_that_makes_no_new_pod_waits_for_nobody() -> None:
    pool = a_pool(replicas=3)
    cluster = settled(pool)
    for index in range(3):
        cluster[f"Deployment/ci-builder-{index}"]["spec"]["revisionHistoryLimit"] = 10
    assert len(cluster.step(pool).apply) == 3


# --- certificates --------------------------------------------------------------------------------


def test_a_lost_secret_is_issued_anew_and_the_builders_follow() -> None:
    pool = a_pool()
    cluster = settled(pool)
    del cluster.objects[Ref("Secret", "builds", "ci-builder")]
    todo = cluster.step(pool)
    assert applied(todo) == ["Secret/ci-builder", "Deployment/ci-builder-0"]


def test_a_lost_authority_renews_everything_it_ever_signed() -> None:
    pool = a_pool(access=clients("ana", "bob"))
    cluster = settled(pool)
    del cluster.objects[AUTHORITY]
    todo = cluster.step(pool)
    assert applied(todo) == [
        f"Secret/{AUTHORITY.name}",
        "Secret/ci-builder",
        "Secret/ci-client-ana",
        "Secret/ci-client-bob",
        "Deployment/ci-builder-0",
    ]
    assert {c.reason for c in todo.apply[1:4]} == {EventReason.RENEWED_CERTIFICATE}


def test_a_damaged_secret_is_mended() -> None:
    pool = a_pool()
    cluster = settled(pool)
    cluster["Secret/ci-client-default"]["data"]["tls.crt"] = "bm9uc2Vuc2U="
    assert applied(cluster.step(pool)) == ["Secret/ci-client-default"]
    assert bundle_of(cluster["Secret/ci-client-default"]) is not None


def test_a_secret_changed_under_its_other_names_is_mended() -> None:
    pool = a_pool()
    cluster = settled(pool)
    cluster["Secret/ci-client-default"]["data"]["key.pem"] = "bm9uc2Vuc2U="
    todo = cluster.step(pool)
    assert [c.reason for c in todo.apply] == [EventReason.REPAIRED_DRIFT]


def test_a_settled_pool_is_looked_at_again_after_ten_minutes() -> None:
    pool = a_pool()
    assert asked(pool, settled(pool).observe(pool)).recheck == timedelta(minutes=10)


def test_a_renewal_that_comes_sooner_is_not_missed() -> None:
    pool = a_pool(access={"certificateDuration": "1h"})
    cluster = settled(pool)
    almost = asked(pool, cluster.observe(pool), NOW + timedelta(minutes=36))
    assert (almost.issue, almost.recheck) == ((), timedelta(minutes=4))
    due = asked(pool, cluster.observe(pool), NOW + timedelta(minutes=40))
    assert {issuance.reason for issuance in due.issue} == {CertificateReason.RENEWAL_DUE}


@pytest.mark.parametrize("duration", ["1h", "90d", "825d"])
def test_no_certificate_ever_expires_while_passes_come_when_the_last_one_asked(
    duration: str,
) -> None:
    pool = a_pool(access={"certificateDuration": duration})
    cluster = settled(pool)
    for _ in range(12):
        # Between two renewals nothing happens but the ten-minute look; skip most of these.
        skipped = earliest_renewal(pool, cluster) - cluster.now - timedelta(minutes=25)
        cluster.now += max(timedelta(0), skipped)
        recheck = RESYNC
        while not (todo := cluster.step(pool)).apply:
            assert timedelta(0) < todo.recheck <= RESYNC
            recheck = todo.recheck
            cluster.now += recheck
        assert {c.reason for c in todo.apply if c.ref.kind == "Secret"} == {
            EventReason.RENEWED_CERTIFICATE
        }
        assert all(end > cluster.now for end in ends(pool, cluster))
        cluster.settle(pool)


def test_the_operator_may_sleep_for_years() -> None:
    pool = a_pool()
    cluster = settled(pool)
    cluster.now += 3 * 365 * DAY
    cluster.settle(pool)
    assert all(end > cluster.now for end in ends(pool, cluster))


def test_an_authority_is_replaced_before_it_would_cut_a_certificate_short() -> None:
    pool = a_pool()
    cluster = settled(pool)
    cluster.now = NOW + 3560 * DAY
    cluster.settle(pool)
    authority = pair_of(cluster[f"Secret/{AUTHORITY.name}"])
    assert authority is not None
    assert read(authority).not_after == NOW + 3650 * DAY, "there is just room for one more"

    cluster.now += timedelta(seconds=1)
    first, *rest = cluster.settle(pool)
    assert applied(first)[0] == f"Secret/{AUTHORITY.name}"
    assert rest == []
    assert set(ends(pool, cluster)) == {cluster.now + 90 * DAY}


def test_an_authority_whose_end_was_slept_through_is_replaced_with_all_it_signed() -> None:
    pool = a_pool()
    cluster = settled(pool)
    cluster.now += 3651 * DAY
    cluster.settle(pool)
    assert set(ends(pool, cluster)) == {cluster.now + 90 * DAY}


def bundles(pool: Pool, cluster: MemoryCluster) -> list[Object]:
    return [cluster.objects[ref] for ref in certificate_requests(pool)]


def ends(pool: Pool, cluster: MemoryCluster) -> list[datetime]:
    pairs = [pair_of(secret) for secret in bundles(pool, cluster)]
    return [read(pair).not_after for pair in pairs if pair is not None]


def earliest_renewal(pool: Pool, cluster: MemoryCluster) -> datetime:
    pairs = [pair_of(secret) for secret in bundles(pool, cluster)]
    return min(renew_at(pair) for pair in pairs if pair is not None)


def test_what_was_issued_in_this_pass_goes_before_what_is_live() -> None:
    pool = a_pool()
    cluster = settled(pool)
    ref = Ref("Secret", "builds", "ci-client-default")
    live = cluster.observe(pool)
    stale = bundle_at(live, ref)
    observation, _ = planned(pool, replace(live, live={AUTHORITY: live.live[AUTHORITY]}))
    assert bundle_at(replace(live, issued=observation.issued), ref) != stale
