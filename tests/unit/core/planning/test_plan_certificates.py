"""The certificates of a pool as its plans renew them, and what that costs its builders."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

import pytest

from buildpool.core import naming
from buildpool.core.api import EventReason, Pool
from buildpool.core.objects.refs import Object, Ref
from buildpool.core.pauses import lot
from buildpool.core.pki import AuthorityPhase, CertificateReason, read, renew_at
from buildpool.core.planning.certificates import certificate_requests
from buildpool.core.planning.plan import RESYNC
from buildpool.core.resources import bundle_of, pair_of
from buildpool.core.resources.secret import authority_in
from memory_cluster import PASS, MemoryCluster, settled
from plans import applied, asked, ordered, turnover
from samples import DAY, HOME, INSTALLATION, NOW, a_pool, a_situation, clients, planned

AUTHORITY = Ref("Secret", HOME, "authority.builds.ci")


def test_a_lost_secret_is_issued_anew_and_the_builders_follow() -> None:
    pool = a_pool()
    cluster = settled(pool)
    del cluster.objects[Ref("Secret", "builds", "ci-builder")]
    todo = cluster.step(pool)
    assert applied(todo) == ["Secret/ci-builder", "Deployment/ci-builder-1"]
    assert [turnover(todo) for todo in cluster.settle(pool)] == [
        ([], ["ci-builder-0"], []),
        ([], [], ["ci-builder-0"]),
    ]


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
        "Deployment/ci-builder-1",
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


def test_a_builder_without_a_node_does_not_keep_the_others_from_a_new_certificate() -> None:
    pool = a_pool(replicas=3)
    cluster = MemoryCluster(full={"ci-builder-2"})
    cluster.settle(pool)
    cluster.now = NOW + 61 * DAY
    assert [turnover(todo) for todo in cluster.settle(pool)] == [
        (["ci-builder-3", "ci-builder-4"], ["ci-builder-2"], []),
        (["ci-builder-5"], ["ci-builder-1"], ["ci-builder-2"]),
        ([], ["ci-builder-0"], ["ci-builder-1"]),
        ([], [], ["ci-builder-0"]),
    ]


def test_a_settled_pool_is_looked_at_again_after_ten_minutes() -> None:
    pool = a_pool()
    assert asked(pool, settled(pool).observe(pool)).recheck == timedelta(minutes=10)


def test_a_renewal_that_comes_sooner_is_not_missed() -> None:
    pool = a_pool(access={"certificateDuration": "1h"})
    cluster = settled(pool)
    due = earliest_renewal(pool, cluster)
    assert NOW + timedelta(minutes=34) <= due <= NOW + timedelta(minutes=40)
    before = due - timedelta(minutes=4)
    almost = asked(pool, cluster.observe(pool), before)
    assert almost.is_empty
    assert almost.recheck == timedelta(minutes=4)
    assert ordered(pool, cluster.observe(pool), before) == ()
    renewed = ordered(pool, cluster.observe(pool), due)
    assert {issuance.why.reason for issuance in renewed} == {CertificateReason.RENEWAL_DUE}


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
        while not (todo := cluster.step(pool)).apply:
            assert timedelta(0) < todo.recheck <= RESYNC
            cluster.now += todo.recheck
            assert all(end > cluster.now for end in ends(pool, cluster))
        assert any(change.ref.kind == "Secret" for change in todo.apply)
        cluster.settle(pool)
        assert all(end > cluster.now for end in ends(pool, cluster))


def test_the_operator_may_sleep_for_years() -> None:
    pool = a_pool()
    cluster = settled(pool)
    cluster.now += 3 * 365 * DAY
    cluster.settle(pool)
    assert all(end > cluster.now for end in ends(pool, cluster))


def test_an_authority_whose_end_was_slept_through_is_replaced_with_all_it_signed() -> None:
    pool = a_pool()
    cluster = settled(pool)
    cluster.now += 3651 * DAY
    woken = cluster.now
    cluster.settle(pool)
    assert set(ends(pool, cluster)) == {woken + 90 * DAY}


def test_an_authority_is_replaced_step_by_step_when_everybody_has_followed() -> None:
    pool = a_pool(metadata={"annotations": {naming.ANNOTATION_ROTATE: "authority"}})
    cluster = settled(a_pool())
    cluster.builds = {"ci-builder-0": 1}
    cluster.settle(pool)
    pool = a_pool()
    assert phase(cluster) is AuthorityPhase.INTRODUCING
    cluster.now += pool.spec.access.authority_overlap
    cluster.settle(pool)
    assert phase(cluster) is AuthorityPhase.INTRODUCING, "one daemon does not know it yet"

    cluster.builds = {}
    cluster.settle(pool)
    assert phase(cluster) is AuthorityPhase.REPLACING
    cluster.now += pool.spec.access.authority_overlap
    cluster.settle(pool)
    assert phase(cluster) is AuthorityPhase.STEADY
    assert cluster.plan(pool).is_empty


def test_a_draining_pod_without_a_deployment_has_to_follow_a_new_authority_too() -> None:
    cluster = settled(a_pool())
    cluster.settle(a_pool(metadata={"annotations": {naming.ANNOTATION_ROTATE: "authority"}}))
    pool = a_pool()
    (pod,) = cluster.pods.values()
    old = {**pod, "metadata": {**pod["metadata"], "name": "old", "uid": "old"}}
    old["metadata"]["deletionTimestamp"] = "2026-01-01T12:00:00Z"
    old["metadata"]["labels"] = {**old["metadata"]["labels"], naming.LABEL_BUILDER: "ci-builder-9"}
    old["metadata"]["annotations"] = {naming.ANNOTATION_REVISION: "old"}
    cluster.pods["old"] = old
    cluster.builds = {"ci-builder-9": 1}
    cluster.now += pool.spec.access.authority_overlap + PASS
    cluster.settle(pool)
    assert phase(cluster) is AuthorityPhase.INTRODUCING
    cluster.builds = {}
    cluster.drain()
    cluster.settle(pool)
    assert phase(cluster) is AuthorityPhase.REPLACING


def phase(cluster: MemoryCluster) -> AuthorityPhase:
    authority = authority_in(cluster[f"Secret/{AUTHORITY.name}"])
    assert authority is not None
    return authority.phase


def bundles(pool: Pool, cluster: MemoryCluster) -> list[Object]:
    return [cluster.objects[ref] for ref in certificate_requests(pool, INSTALLATION)]


def ends(pool: Pool, cluster: MemoryCluster) -> list[datetime]:
    pairs = [pair_of(secret) for secret in bundles(pool, cluster)]
    return [read(pair).not_after for pair in pairs if pair is not None]


def earliest_renewal(pool: Pool, cluster: MemoryCluster) -> datetime:
    pairs = [pair_of(secret) for secret in bundles(pool, cluster)]
    chance = lot(pool.uid)
    return min(renew_at(pair, chance=chance) for pair in pairs if pair is not None)


def test_what_was_issued_in_this_pass_goes_before_what_is_live() -> None:
    pool = a_pool()
    cluster = settled(pool)
    ref = Ref("Secret", "builds", "ci-client-default")
    live = cluster.observe(pool)
    stale = a_situation(pool, live).bundles[ref]
    situation, _ = planned(pool, replace(live, live={AUTHORITY: live.live[AUTHORITY]}))
    assert a_situation(pool, live, issued=situation.issued).bundles[ref] != stale
