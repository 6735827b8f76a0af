"""What a pass tells: the pool's status as a whole, and the Events that lead there."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given

from buildpool.core.api import (
    Condition,
    ConditionStatus,
    EventReason,
    PoolStatus,
    ScalingStatus,
    SizeReason,
    identify_pool,
    parse_pool,
)
from buildpool.core.api.events import Event, EventType
from buildpool.core.api.status import MAX_MESSAGE_CHARACTERS, CertificatesStatus
from buildpool.core.errors import InvalidSpecError
from buildpool.core.objects.refs import Ref
from buildpool.core.observed.observation import Observation
from buildpool.core.pki import Bundle
from buildpool.core.planning.certificates import cache_secrets, gateway_secrets
from buildpool.core.reporting.outcome import Failure, Outcome
from buildpool.core.reporting.report import (
    Report,
    report_invalid,
    report_pass,
    report_removal,
)
from buildpool.core.resources import bundle_of
from memory_cluster import settled
from samples import DAY, INSTALLATION, NOW, a_pod, a_pool, a_raw_pool, clients, planned, specs
from unit.passes import (
    ACCEPTED,
    CERTIFICATES,
    PROGRESSING,
    READY,
    condition,
    judged,
    says,
    told,
    with_pods,
    with_status,
)

LATER = NOW + timedelta(minutes=5)


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
    assert (status.busy, status.busy_slots, status.slots) == ("0/4", 0, 4)
    assert status.scaling == ScalingStatus(
        size=2,
        reason=SizeReason.REPLICAS_SET,
        message="spec.replicas asks for 2 builders.",
        since=NOW,
    )
    assert status.authority is not None
    assert status.authority.phase is None
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
    assert status.authority.not_after == NOW + 3650 * DAY


def test_one_builder_is_not_all_builders() -> None:
    pool = a_pool()
    verdict = judged(pool, settled(pool).observe(pool))
    assert condition(verdict, READY).message == "The builder takes builds."
    assert "of 1 client are valid" in condition(verdict, CERTIFICATES).message


EVERYTHING = {"routing": "Gateway", "cache": {"registry": {"managed": {}}}}


def test_when_certificates_end_is_told_of_each_use_that_the_pool_has() -> None:
    pool = a_pool()
    end = NOW + 90 * DAY
    status = judged(pool, settled(pool).observe(pool)).status
    assert status.certificates == CertificatesStatus(builder=end)
    pool = a_pool(**EVERYTHING)
    status = judged(pool, settled(pool).observe(pool)).status
    assert status.certificates == CertificatesStatus(builder=end, gateway=end, cache=end)


@pytest.mark.parametrize("number", [0, 1])
@pytest.mark.parametrize("use", ["gateway", "cache"])
def test_of_two_certificates_of_one_use_the_one_that_ends_first_is_told(
    number: int, use: str
) -> None:
    pool = a_pool(**EVERYTHING)
    cluster = settled(pool)
    secrets = {"gateway": gateway_secrets(pool, INSTALLATION), "cache": cache_secrets(pool)}
    del cluster.objects[secrets[use][number]]
    cluster.now = NOW + 7 * DAY
    cluster.settle(pool)
    found = judged(pool, cluster.observe(pool), now=cluster.now).status.certificates
    assert found is not None
    assert getattr(found, use) == NOW + 90 * DAY


def test_a_certificate_that_could_not_be_written_is_none() -> None:
    pool = a_pool(**EVERYTHING)
    observation = settled(pool).observe(pool)
    due = NOW + 61 * DAY
    renewed = judged(pool, observation, now=due).status
    refused = Outcome(failures=(Failure(Ref("Secret", "builds", "ci-builder"), "no"),))
    kept = judged(pool, observation, refused, now=due).status
    for status, end in ((renewed, due + 90 * DAY), (kept, NOW + 90 * DAY)):
        assert status.certificates == CertificatesStatus(builder=end, gateway=end, cache=end)
        assert [client.not_after for client in status.clients] == [end]


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
    assert told(resting) == [(EventType.NORMAL, "ScaledDown"), (EventType.NORMAL, "ScaledToZero")]


def test_what_was_done_is_told_before_what_has_changed() -> None:
    pool = a_pool()
    done = Event(EventType.NORMAL, EventReason.CREATED_BUILDER, "Created ci-builder-0.")
    verdict = judged(pool, settled(pool).observe(pool), Outcome(done=(done,)))
    assert told(verdict) == [(EventType.NORMAL, "CreatedBuilder"), (EventType.NORMAL, "Ready")]


def test_builds_that_were_lost_are_told_before_all_that_follows_from_it() -> None:
    lost = Event(EventType.WARNING, EventReason.BUILDS_LOST, "ci-builder-0 has lost builds x.")
    pool = a_pool()
    verdict = judged(pool, settled(pool).observe(pool)).after((lost,))
    assert told(verdict) == [(EventType.WARNING, "BuildsLost"), (EventType.NORMAL, "Ready")]


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
    assert len(condition(verdict, READY).message) <= MAX_MESSAGE_CHARACTERS
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
    verdict = report_invalid(identify_pool(raw), refusal(raw), now=LATER)
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

    again = report_invalid(with_status(identify_pool(raw), verdict), refusal(raw), now=LATER + DAY)
    assert again == Report(verdict.status)


def test_a_mended_spec_is_accepted_again() -> None:
    pool = a_pool()
    observation = settled(pool).observe(pool)
    status = judged(pool, observation).status
    raw = a_raw_pool(builders={"config": "no toml"}, generation=2, status=status)
    broken = report_invalid(identify_pool(raw), refusal(raw), now=NOW)
    verdict = judged(with_status(pool, broken), observation, now=LATER)
    assert told(verdict) == [(EventType.NORMAL, "Accepted")]


# --- a pool that goes ----------------------------------------------------------------------------


def test_a_deleted_pool_says_what_it_waits_for() -> None:
    pool = a_pool(replicas=2)
    pool = with_status(pool, judged(pool, settled(pool).observe(pool)))
    verdict = report_removal(pool, draining=("ci-builder-0-a", "ci-builder-1-b"), now=LATER)
    assert says(verdict, READY) == ("False", "Terminating")
    message = condition(verdict, READY).message
    assert message == "Waiting for running builds to finish on ci-builder-0-a, ci-builder-1-b."
    assert (verdict.status.ready, verdict.status.ready_replicas) == ("0/0", 0)
    assert told(verdict) == [(EventType.NORMAL, "Terminating")]
    assert report_removal(with_status(pool, verdict), draining=(), now=LATER).events == ()


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
    situation, todo = planned(pool, cluster.observe(pool))
    failures = tuple(Failure(change.ref, "refused") for change in todo.apply)
    done = tuple(
        Event(EventType.NORMAL, change.reason, change.message)
        for change in todo.apply
        if change.reason
    )
    verdict = report_pass(situation, todo, Outcome(done, failures))
    told_all = repr(verdict) + json.dumps(verdict.status.to_dict())
    assert not [line for line in material if line in told_all]
    assert "PRIVATE" not in told_all
