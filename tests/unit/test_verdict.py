from __future__ import annotations

import base64
import json
from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest
from hypothesis import given

from buildpool import naming
from buildpool.api import (
    Condition,
    ConditionStatus,
    ConditionType,
    EventReason,
    Pool,
    PoolStatus,
    Reason,
    identify_pool,
    parse_pool,
)
from buildpool.errors import InvalidSpecError
from buildpool.observation import Observation
from buildpool.outcome import Event, EventType, Failure, Outcome
from buildpool.pki import Bundle
from buildpool.resources import Ref, bundle_of
from buildpool.verdict import MAX_MESSAGE, Verdict, conclude, farewell, refuse
from memory_cluster import MemoryCluster, settled
from samples import (
    DAY,
    HOME,
    NOW,
    a_pod,
    a_pool,
    a_raw_pool,
    clients,
    foreign,
    planned,
    specs,
)

READY, PROGRESSING = ConditionType.READY, ConditionType.PROGRESSING
CERTIFICATES, ACCEPTED = ConditionType.CERTIFICATES_READY, ConditionType.ACCEPTED
LATER = NOW + timedelta(minutes=5)
SERVICE = Ref("Service", "builds", "ci")


def judged(
    pool: Pool, observation: Observation, outcome: Outcome | None = None, now: datetime = NOW
) -> Verdict:
    """The verdict of a pass that saw this."""
    observation, todo = planned(pool, observation, now=now)
    return conclude(pool, observation, todo, outcome or Outcome(), home=HOME, now=now)


def told(verdict: Verdict) -> list[tuple[EventType, str]]:
    return [(event.type, event.reason.value) for event in verdict.events]


def condition(verdict: Verdict, kind: ConditionType) -> Condition:
    found = verdict.status.condition(kind)
    assert found is not None
    return found


def says(verdict: Verdict, kind: ConditionType) -> tuple[str, str]:
    found = condition(verdict, kind)
    return found.status.value, found.reason


def with_status(pool: Pool, verdict: Verdict) -> Pool:
    """The pool as it is read in the next pass."""
    return replace(pool, status=PoolStatus.read(verdict.status.to_dict()))


def with_pods(observation: Observation, *pods: dict[str, Any]) -> Observation:
    return replace(observation, pods=pods)


# --- each situation ------------------------------------------------------------------------------


def test_a_new_pool_says_that_its_builders_are_being_added() -> None:
    verdict = judged(a_pool(replicas=2), Observation())
    assert says(verdict, ACCEPTED) == ("True", "Accepted")
    assert says(verdict, CERTIFICATES) == ("True", "Issued")
    assert says(verdict, PROGRESSING) == ("True", "Scaling")
    assert says(verdict, READY) == ("False", "BuildersStarting")
    assert verdict.status.ready == "0/2"
    assert verdict.status.replicas == 0
    assert told(verdict) == [], "the Events of what was done say it already"


def test_a_settled_pool_says_so_and_how_to_reach_it() -> None:
    pool = a_pool(replicas=2, access=clients("ana", "bob"))
    verdict = judged(pool, settled(pool).observe(pool))
    status = verdict.status
    assert says(verdict, READY) == ("True", "Ready")
    assert says(verdict, PROGRESSING) == ("False", "Settled")
    assert condition(verdict, READY).message == "All 2 builders take builds."
    assert (status.ready, status.replicas, status.ready_replicas) == ("2/2", 2, 2)
    assert status.endpoint == "tcp://ci.builds.svc:1234"
    assert status.selector == "app.kubernetes.io/component=builder,buildpool.dev/pool=ci"
    assert status.image == "moby/buildkit:v0.34.2-rootless"
    assert [(b.name, b.ready, b.reason) for b in status.builders] == [
        ("ci-builder-0", True, None),
        ("ci-builder-1", True, None),
    ]
    assert len({b.revision for b in status.builders}) == 1
    assert [(c.name, c.secret, c.not_after) for c in status.clients] == [
        ("ana", "ci-client-ana", NOW + 90 * DAY),
        ("bob", "ci-client-bob", NOW + 90 * DAY),
    ]
    assert status.authority is not None
    assert status.authority.not_after == NOW + 3650 * DAY


def test_one_builder_is_not_all_builders() -> None:
    pool = a_pool()
    verdict = judged(pool, settled(pool).observe(pool))
    assert condition(verdict, READY).message == "The builder takes builds."
    assert "of 1 client are valid" in condition(verdict, CERTIFICATES).message


def test_a_builder_that_rolls_is_named() -> None:
    before = a_pool(replicas=2, builders={"image": "r.example/buildkit:v1"})
    cluster = settled(before)
    pool = a_pool(replicas=2, builders={"image": "r.example/buildkit:v2"})
    _, todo = planned(pool, cluster.observe(pool))
    cluster.act(todo)
    verdict = judged(pool, cluster.observe(pool))
    assert says(verdict, PROGRESSING) == ("True", "RollingOut")
    assert condition(verdict, PROGRESSING).message == "Waiting for ci-builder-0."
    assert says(verdict, READY) == ("True", "Ready"), "the old pod serves until the new one does"


def test_a_bad_revision_is_named_while_the_old_one_serves() -> None:
    cluster = settled(a_pool(builders={"image": "r.example/buildkit:v1"}))
    cluster.bad_images = {"r.example/buildkit:v2"}
    pool = a_pool(builders={"image": "r.example/buildkit:v2"})
    cluster.step(pool)
    observation = cluster.observe(pool)
    bad = a_pod(suffix="bad", waiting=("ErrImagePull", "not found"))
    verdict = judged(pool, with_pods(observation, a_pod(suffix="old"), bad))
    assert says(verdict, READY) == ("True", "Ready")
    assert says(verdict, PROGRESSING) == ("False", "ImagePullFailed")
    assert condition(verdict, PROGRESSING).message.startswith("ci-builder-0: image ")


def test_the_remains_of_an_evicted_pod_trouble_nobody() -> None:
    pool = a_pool()
    evicted = a_pod(suffix="old", phase="Failed", ended={"exitCode": 137, "reason": "Error"})
    observation = with_pods(settled(pool).observe(pool), evicted, a_pod())
    verdict = judged(pool, observation)
    assert says(verdict, READY) == ("True", "Ready")
    assert says(verdict, PROGRESSING) == ("False", "Settled")
    assert verdict.status.builders[0].reason is None


def test_the_first_builder_in_trouble_gives_the_reason_not_one_that_just_starts() -> None:
    pool = a_pool(replicas=3)
    observation = settled(pool).observe(pool)
    pods = (
        a_pod("ci-builder-0"),
        a_pod("ci-builder-1", ready=False),
        a_pod("ci-builder-2", unschedulable="0/1 nodes are available: 1 Insufficient memory."),
    )
    verdict = judged(pool, with_pods(observation, *pods))
    assert says(verdict, READY) == ("False", "Unschedulable")
    message = condition(verdict, READY).message
    assert message.startswith("1 of 3 builders are ready; ci-builder-2: no node takes the pod")
    assert says(verdict, PROGRESSING) == ("False", "Unschedulable")
    assert [b.reason for b in verdict.status.builders] == [
        None,
        "BuildersStarting",
        "Unschedulable",
    ]


def test_a_pool_scaled_down_says_what_it_removes() -> None:
    cluster = settled(a_pool(replicas=3))
    verdict = judged(a_pool(replicas=1), cluster.observe(a_pool(replicas=1)))
    assert says(verdict, PROGRESSING) == ("True", "Scaling")
    assert condition(verdict, PROGRESSING).message == "Adding 0 and removing 2 builders."
    assert (verdict.status.ready, verdict.status.replicas) == ("1/1", 3)


def test_a_pool_without_builders_says_how_to_get_some() -> None:
    pool = a_pool(replicas=0)
    verdict = judged(pool, settled(pool).observe(pool))
    assert says(verdict, READY) == ("False", "ScaledToZero")
    assert "set spec.replicas to 1 or more" in condition(verdict, READY).message
    assert says(verdict, PROGRESSING) == ("False", "Settled")


def test_what_the_cluster_refuses_is_quoted() -> None:
    failure = Failure(
        Ref("Deployment", "builds", "ci-builder-0"), "admission webhook denied the request"
    )
    verdict = judged(a_pool(), Observation(), Outcome(failures=(failure,)))
    assert says(verdict, READY) == ("False", "ObjectRefused")
    assert "Deployment builds/ci-builder-0" in condition(verdict, READY).message
    assert "admission webhook denied the request" in condition(verdict, READY).message
    assert says(verdict, CERTIFICATES) == ("True", "Issued")


def test_builders_that_serve_are_ready_though_a_change_was_refused() -> None:
    pool = a_pool()
    failure = Failure(Ref("PersistentVolumeClaim", "builds", "ci-builder-0"), "cannot be shrunk")
    verdict = judged(pool, settled(pool).observe(pool), Outcome(failures=(failure,)))
    assert says(verdict, READY) == ("True", "Ready")
    assert says(verdict, PROGRESSING) == ("False", "ObjectRefused")
    assert "cannot be shrunk" in condition(verdict, PROGRESSING).message


def test_a_refused_secret_is_a_matter_of_certificates() -> None:
    failure = Failure(Ref("Secret", "builds", "ci-client-ana"), "exceeded quota: secrets")
    verdict = judged(a_pool(access=clients("ana")), Observation(), Outcome(failures=(failure,)))
    assert says(verdict, CERTIFICATES) == ("False", "CertificateFailed")
    assert "Secret builds/ci-client-ana" in condition(verdict, CERTIFICATES).message


@pytest.mark.parametrize(
    ("kind", "reason"), [("Secret", "SecretNotFound"), ("ConfigMap", "ConfigMapNotFound")]
)
def test_what_the_spec_names_and_is_not_there_is_named(kind: str, reason: str) -> None:
    pool = a_pool()
    observation = with_pods(settled(pool).observe(pool), a_pod(ready=False))
    observation = replace(observation, absent=frozenset({Ref(kind, "builds", "corporate-ca")}))
    verdict = judged(pool, observation)
    assert says(verdict, READY) == ("False", reason)
    assert f"{kind} builds/corporate-ca" in condition(verdict, READY).message
    assert "create it" in condition(verdict, READY).message


def test_what_is_missing_is_no_news_while_all_builders_serve() -> None:
    pool = a_pool()
    observation = replace(
        settled(pool).observe(pool), absent=frozenset({Ref("Secret", "builds", "gone")})
    )
    assert says(judged(pool, observation), READY) == ("True", "Ready")


# --- conflicts -----------------------------------------------------------------------------------


def conflicting(cluster: MemoryCluster, ref: Ref, **fields: object) -> Observation:
    cluster.objects[ref] = foreign(ref, **fields)
    return cluster.observe(a_pool())


def test_a_conflict_is_named_with_its_remedy_and_nothing_is_claimed() -> None:
    verdict = judged(a_pool(), conflicting(MemoryCluster(), SERVICE))
    for kind in (READY, PROGRESSING, CERTIFICATES):
        assert says(verdict, kind) == ("False", "NameConflict")
        assert "Service builds/ci" in condition(verdict, kind).message
        assert "rename the pool or remove it" in condition(verdict, kind).message
    assert verdict.status.clients == ()
    assert verdict.status.authority is None
    assert told(verdict) == [(EventType.WARNING, "NameConflict")], "once, not three times"


def test_certificates_from_before_a_conflict_are_still_valid_until_they_end() -> None:
    pool = a_pool()
    cluster = settled(pool)
    del cluster.objects[SERVICE]
    observation = conflicting(cluster, SERVICE)
    assert says(judged(pool, observation), CERTIFICATES) == ("True", "Issued")
    later = judged(pool, observation, now=NOW + 91 * DAY)
    assert says(later, CERTIFICATES) == ("False", "NameConflict")


@pytest.mark.parametrize("name", ["ci-client-default", "authority.builds.ci"])
def test_a_secret_of_others_is_neither_read_nor_reported(name: str) -> None:
    pool = a_pool()
    cluster = settled(pool)
    ref = next(ref for ref in cluster.objects if ref.name == name)
    nonsense = dict.fromkeys(("ca.pem", "tls.crt", "tls.key"), "bm9uc2Vuc2U=")
    verdict = judged(pool, conflicting(cluster, ref, data=nonsense))
    assert says(verdict, READY) == ("False", "NameConflict")
    assert (verdict.status.clients == ()) == (name == "ci-client-default")
    assert (verdict.status.authority is None) == (name == "authority.builds.ci")


def test_a_damaged_secret_of_ours_does_not_hide_a_conflict() -> None:
    pool = a_pool()
    cluster = settled(pool)
    cluster["Secret/ci-client-default"]["data"]["tls.crt"] = "bm9uc2Vuc2U="
    del cluster.objects[SERVICE]
    verdict = judged(pool, conflicting(cluster, SERVICE))
    assert says(verdict, READY) == ("False", "NameConflict")
    assert says(verdict, CERTIFICATES) == ("False", "NameConflict")


def test_a_deployment_of_others_under_our_label_does_not_count() -> None:
    pool = a_pool()
    cluster = settled(pool)
    ref = Ref("Deployment", "builds", "theirs")
    cluster.objects[ref] = foreign(ref, spec={})
    cluster.objects[ref]["metadata"]["labels"] = {naming.LABEL_POOL: "ci"}
    verdict = judged(pool, cluster.observe(pool))
    assert verdict.status.replicas == 1
    assert says(verdict, PROGRESSING) == ("False", "Settled")


# --- transitions and Events ----------------------------------------------------------------------


def test_transition_times_move_only_with_the_status() -> None:
    pool = a_pool()
    observation = settled(pool).observe(pool)
    first = judged(pool, observation)
    again = judged(with_status(pool, first), observation, now=LATER)
    assert again.status == first.status

    lost = judged(with_status(pool, first), with_pods(observation), now=LATER)
    assert condition(lost, READY).last_transition_time == LATER
    assert condition(lost, ACCEPTED).last_transition_time == NOW

    crashing = with_pods(observation, a_pod(ended={"exitCode": 1}))
    other_reason = judged(with_status(pool, lost), crashing, now=LATER + DAY)
    assert says(other_reason, READY) == ("False", "BuilderCrashing")
    assert condition(other_reason, READY).last_transition_time == LATER


def test_a_transition_is_told_once() -> None:
    pool = a_pool()
    observation = settled(pool).observe(pool)
    first = judged(pool, observation)
    assert told(first) == [(EventType.NORMAL, "Ready")]
    pool = with_status(pool, first)
    assert told(judged(pool, observation)) == []

    crashing = with_pods(observation, a_pod(ended={"exitCode": 1}))
    lost = judged(pool, crashing)
    assert told(lost) == [(EventType.WARNING, "BuilderCrashing")], "not for Progressing, too"
    assert lost.events[0].message == condition(lost, READY).message
    pool = with_status(pool, lost)
    assert told(judged(pool, crashing)) == []
    assert told(judged(pool, observation)) == [(EventType.NORMAL, "Ready")]


def test_what_nobody_needs_to_mend_is_no_warning() -> None:
    pool = a_pool()
    cluster = settled(pool)
    pool = with_status(pool, judged(pool, cluster.observe(pool)))
    restarting = judged(pool, with_pods(cluster.observe(pool), a_pod(ready=False)))
    assert told(restarting) == [(EventType.NORMAL, "BuildersStarting")]
    resting = judged(a_pool(replicas=0, status=pool.status), Observation())
    assert told(resting) == [(EventType.NORMAL, "ScaledToZero")]


def test_what_was_done_is_told_before_what_has_changed() -> None:
    pool = a_pool()
    done = Event(EventType.NORMAL, EventReason.CREATED_BUILDER, "Created ci-builder-0.")
    verdict = judged(pool, settled(pool).observe(pool), Outcome(done=(done,)))
    assert told(verdict) == [(EventType.NORMAL, "CreatedBuilder"), (EventType.NORMAL, "Ready")]


@given(specs)
def test_a_status_is_read_as_it_was_written(spec: dict[str, object]) -> None:
    pool = a_pool(**spec)
    for observation in (Observation(), settled(pool).observe(pool)):
        status = judged(pool, observation).status
        assert PoolStatus.read(json.loads(json.dumps(status.to_dict()))) == status


def test_a_status_whose_text_has_no_end_is_cut() -> None:
    pool = a_pool()
    endless = a_pod(waiting=("ErrImagePull", "x" * 100_000))
    verdict = judged(pool, with_pods(settled(pool).observe(pool), endless))
    assert len(condition(verdict, READY).message) <= MAX_MESSAGE
    assert PoolStatus.read(verdict.status.to_dict()) == verdict.status


def test_conditions_of_others_are_kept() -> None:
    theirs = Condition(type="Theirs", status=ConditionStatus.TRUE, reason="Because")
    pool = a_pool(status=PoolStatus(conditions=(theirs,)))
    verdict = judged(pool, Observation())
    assert verdict.status.condition("Theirs") == theirs


# --- a spec that cannot be carried out -----------------------------------------------------------


def refusal(raw: dict[str, Any]) -> InvalidSpecError:
    with pytest.raises(InvalidSpecError) as caught:
        parse_pool(raw)
    return caught.value


def test_an_invalid_spec_keeps_the_rest_of_the_status() -> None:
    pool = a_pool(replicas=2)
    before = judged(pool, settled(pool).observe(pool)).status
    raw = a_raw_pool(builders={"image": "moby/buildkit:latest"}, generation=2, status=before)
    verdict = refuse(identify_pool(raw).status, refusal(raw), generation=2, now=LATER)
    accepted = condition(verdict, ACCEPTED)
    assert says(verdict, ACCEPTED) == ("False", "InvalidSpec")
    assert accepted.last_transition_time == LATER
    assert accepted.observed_generation == verdict.status.observed_generation == 2
    assert accepted.message.startswith("spec.builders.image: ")
    assert "name a fixed version" in accepted.message
    assert "What was valid before keeps serving." in accepted.message
    assert condition(verdict, READY) == before.condition(READY)
    rest = {"observed_generation", "conditions"}
    assert verdict.status.model_dump(exclude=rest) == before.model_dump(exclude=rest)
    assert told(verdict) == [(EventType.WARNING, "InvalidSpec")]

    again = refuse(verdict.status, refusal(raw), generation=2, now=LATER + DAY)
    assert again == Verdict(verdict.status)


def test_a_mended_spec_is_accepted_again() -> None:
    pool = a_pool()
    observation = settled(pool).observe(pool)
    raw = a_raw_pool(oops=1)
    status = judged(pool, observation).status
    broken = refuse(status, refusal(raw), generation=2, now=NOW)
    verdict = judged(with_status(pool, broken), observation, now=LATER)
    assert told(verdict) == [(EventType.NORMAL, "Accepted")]


# --- a pool that goes ----------------------------------------------------------------------------


def test_a_deleted_pool_says_what_it_waits_for() -> None:
    pool = a_pool(replicas=2)
    pool = with_status(pool, judged(pool, settled(pool).observe(pool)))
    verdict = farewell(pool, draining=("ci-builder-0-a", "ci-builder-1-b"), now=LATER)
    assert says(verdict, READY) == ("False", "Terminating")
    message = condition(verdict, READY).message
    assert message == "Waiting for running builds to finish on ci-builder-0-a, ci-builder-1-b."
    assert (verdict.status.ready, verdict.status.ready_replicas) == ("0/0", 0)
    assert told(verdict) == [(EventType.NORMAL, "Terminating")]
    assert farewell(with_status(pool, verdict), draining=(), now=LATER).events == ()


# --- what must never be told ---------------------------------------------------------------------


def key_material(bundles: Iterable[Bundle]) -> set[str]:
    """Lines of private keys, as PEM holds them and as a Secret does."""
    found: set[str] = set()
    for bundle in bundles:
        lines = bundle.pair.key.decode().splitlines()[1:-1]
        encoded = base64.b64encode(bundle.pair.key).decode()
        found |= {*lines, *(encoded[i : i + 32] for i in range(64, len(encoded) - 32, 32))}
    return found


def test_no_key_is_ever_told() -> None:
    pool = a_pool(access=clients("ana"))
    cluster = settled(pool)
    secrets = [obj for ref, obj in cluster.objects.items() if ref.kind == "Secret"]
    bundles = [bundle for secret in secrets if (bundle := bundle_of(secret))]
    material = key_material(bundles)
    assert len(bundles) == 2
    assert len(material) > 8

    # A key where a certificate should be, and every Secret in need of being written again.
    for secret in secrets:
        secret["data"]["tls.crt"] = secret["data"]["tls.key"]
        secret["metadata"]["labels"].clear()
    observation, todo = planned(pool, cluster.observe(pool))
    failures = tuple(Failure(change.ref, "refused") for change in todo.apply)
    done = tuple(
        Event(EventType.NORMAL, change.reason, change.message)
        for change in todo.apply
        if change.reason
    )
    verdict = conclude(pool, observation, todo, Outcome(done, failures), home=HOME, now=NOW)
    told_all = repr(verdict) + json.dumps(verdict.status.to_dict())
    assert not [line for line in material if line in told_all]
    assert "PRIVATE" not in told_all


def test_reasons_are_words_of_the_vocabulary() -> None:
    pool = a_pool(replicas=2)
    verdict = judged(pool, with_pods(settled(pool).observe(pool), a_pod(ended={"exitCode": 1})))
    reasons = [c.reason for c in verdict.status.conditions]
    reasons += [b.reason for b in verdict.status.builders if b.reason]
    assert set(reasons) <= set(Reason)
