"""What users hear of a pool as it grows, shrinks and gets another authority: whole stories."""

from __future__ import annotations

from dataclasses import replace

import pytest

from buildpool.core import naming
from buildpool.core.api import EventReason, SizeReason
from buildpool.core.api.events import EventType
from buildpool.core.pki import AuthorityPhase
from samples import DAY
from unit.passes import HOUR, MINUTE, READY, SECOND, Story, says, told, told_story

# --- how many builders, and how busy they are ----------------------------------------------------

SCALED = {"scaling": {"min": 1, "max": 4, "idleAfter": "10m"}}


def test_a_pool_that_gets_builds_tells_what_it_makes_of_them() -> None:
    story = told_story(**SCALED)
    assert story.heard(EventReason.SCALED_UP, EventReason.SCALED_DOWN) == [], "the first size"
    story.start(0, "x", "y")
    verdict = story.look()
    assert told(verdict)[:2] == [
        (EventType.NORMAL, "ScaledUp"),
        (EventType.NORMAL, "CreatedBuilder"),
    ]
    (message,) = story.heard(EventReason.SCALED_UP)
    assert message.startswith("From 1 to 2 builders (FollowsLoad): 2 builds run; ")
    scaling = verdict.status.scaling
    assert scaling is not None
    assert (scaling.size, scaling.reason) == (2, SizeReason.FOLLOWS_LOAD)
    assert verdict.status.busy == "2/2", "the new one takes no builds yet"
    assert story.settle().status.busy == "2/4"
    assert len(story.heard(EventReason.SCALED_UP)) == 1, "it is told once"


def test_a_pool_becomes_smaller_when_it_was_calm_for_long_enough() -> None:
    story = told_story(**SCALED)
    story.start(0, "x", "y")
    grown = story.settle().status.scaling
    story.finish(0)
    calm_since = story.now
    cooling = story.settle().status.scaling
    assert grown is not None
    assert cooling is not None
    assert (cooling.size, cooling.reason, cooling.peak) == (2, SizeReason.COOLING_DOWN, 1)
    assert cooling.calm_since == calm_since
    assert cooling.since == grown.since, "since when the size is so, not the reason"
    assert story.heard(EventReason.SCALED_DOWN) == []

    story.wait(10 * MINUTE)
    at = story.now
    verdict = story.look()
    assert told(verdict) == [
        (EventType.NORMAL, "ScaledDown"),
        (EventType.NORMAL, "RetiredBuilder"),
    ]
    assert verdict.status.scaling is not None
    assert verdict.status.scaling.since == at
    assert verdict.status.scaling.calm_since is None
    (message,) = story.heard(EventReason.SCALED_DOWN)
    assert message.startswith("From 2 to 1 builders (AtMinimum): ")
    (message,) = story.heard(EventReason.RETIRED_BUILDER)
    assert "Deployment builds/ci-builder-1 (Surplus)" in message
    assert told(story.look()) == [(EventType.NORMAL, "RemovedBuilder")]
    assert story.settle().status.ready == "1/1"


def test_a_restarted_operator_tells_no_change_of_size_that_there_was_not() -> None:
    story = told_story(**SCALED)
    story.start(0, "x", "y")
    story.settle()
    told_before = len(story.events)
    again = Story(story.pool, story.cluster, story.builds)
    again.settle()
    assert len(story.events) == told_before
    assert again.events == []


def test_the_size_that_a_user_sets_is_told_as_such() -> None:
    story = told_story(replicas=1)
    story.change(replicas=3)
    story.settle()
    (message,) = story.heard(EventReason.SCALED_UP)
    assert message == "From 1 to 3 builders (ReplicasSet): spec.replicas asks for 3 builders."


def test_builds_on_builders_that_drain_count_as_busy_but_their_slots_do_not() -> None:
    story = told_story(replicas=1, builders={"image": "r.example/buildkit:v1"})
    story.start(0, "x", "y")
    story.change(replicas=1, builders={"image": "r.example/buildkit:v2"})
    status = story.settle().status
    assert (status.busy, status.busy_slots, status.slots) == ("2/2", 2, 2)
    assert status.replicas == 2
    assert status.ready == "1/1"


def test_under_a_conflict_the_size_stays_the_last_that_was_decided() -> None:
    story = told_story(replicas=2)
    service = next(ref for ref in story.cluster.objects if ref.kind == "Service")
    metadata = story.cluster.objects[service]["metadata"]
    metadata |= {"ownerReferences": [], "annotations": {}}
    before = story.pool.status.scaling
    verdict = story.look()
    assert says(verdict, READY) == ("False", "NameConflict")
    assert verdict.status.scaling == before is not None
    assert verdict.status.ready == "2/2", "they serve all the same"


# --- another authority ---------------------------------------------------------------------------


def test_each_phase_of_a_new_authority_is_told_once_with_its_meaning() -> None:
    story = told_story()
    story.ask("authority")
    verdict = story.look()
    assert (EventType.NORMAL, "RotatingAuthority") in told(verdict)
    assert verdict.status.authority is not None
    assert verdict.status.authority.phase == AuthorityPhase.INTRODUCING
    story.ask(None)
    for _ in range(4):
        story.settle()
        story.wait(2 * HOUR)
    assert story.settle().status.authority is not None
    # Certificates of the authority before may be in use until they would be renewed.
    story.wait(90 * DAY)
    verdict = story.settle()
    assert story.heard(EventReason.ROTATING_AUTHORITY) == [
        f"{phase}: {phase.meaning}"
        for phase in (AuthorityPhase.INTRODUCING, AuthorityPhase.REPLACING)
    ]
    assert verdict.status.authority is not None
    assert verdict.status.authority.phase is None
    assert says(verdict, READY) == ("True", "Ready")


def test_a_rotation_that_there_is_not_is_told_with_what_there_is() -> None:
    story = told_story()
    story.ask("autority")
    verdict = story.look()
    assert told(verdict) == [(EventType.WARNING, "UnknownRotation")]
    (message,) = story.heard(EventReason.UNKNOWN_ROTATION)
    assert message == (
        "buildpool.dev/rotate=autority says nothing; ask for authority or certificates."
    )
    assert verdict.status.requests_refused == (message,)
    assert verdict.status.authority is not None
    assert verdict.status.authority.phase is None


def test_a_request_for_other_certificates_is_no_new_authority() -> None:
    story = told_story()
    before = story.pool.status.authority
    story.wait(HOUR)
    story.ask("certificates")
    verdict = story.look()
    assert EventReason.RENEWED_CERTIFICATE.value in {reason for _, reason in told(verdict)}
    assert story.heard(EventReason.ROTATING_AUTHORITY, EventReason.UNKNOWN_ROTATION) == []
    assert verdict.status.authority == before
    assert [client.not_after for client in verdict.status.clients] == [
        story.now.replace(microsecond=0) + 90 * DAY - 5 * SECOND
    ]


@pytest.mark.parametrize("annotation", naming.REQUESTS)
def test_what_cannot_be_done_is_told_once_and_stands_in_the_status(annotation: str) -> None:
    story = told_story()
    story.pool = replace(story.pool, annotations={annotation: "plenty"})
    story.look()
    (message,) = story.pool.status.requests_refused
    assert message.startswith(f"{annotation}=plenty says nothing; ")
    reasons = (
        EventReason.UNKNOWN_ROTATION,
        EventReason.UNKNOWN_WARMTH,
        EventReason.UNKNOWN_CANCELLATION,
    )
    for _ in range(3):
        story.wait(HOUR)
        story.look()
    assert story.heard(*reasons) == [message], "an idle pool costs no write"
    story.pool = replace(story.pool, annotations={})
    story.look()
    assert story.pool.status.requests_refused == ()
