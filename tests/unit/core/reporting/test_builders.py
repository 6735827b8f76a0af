"""What is reported of each builder: where it is in its life, and builds that outlive their time."""

from __future__ import annotations

from datetime import timedelta

import pytest

from buildpool.buildkit.solve_requests import MAX_NAME_CHARACTERS
from buildpool.core import naming
from buildpool.core.api import BuilderState, EventReason
from buildpool.core.api.events import EventType
from buildpool.core.api.status import MAX_RUNNING
from buildpool.core.observed.load import RunningBuild
from buildpool.core.reporting.builders import MAX_MESSAGE_CHARACTERS
from buildpool.core.scaling import NOTICE, SETTLE
from samples import a_pool
from unit.passes import HOUR, MINUTE, PROGRESSING, READY, SECOND, Story, says, told, told_story

V1, V2 = {"image": "r.example/buildkit:v1"}, {"image": "r.example/buildkit:v2"}
LIMIT = 2 * HOUR
"""``builders.maxBuildDuration`` where nothing else is said."""


def draining_story(*refs: str, **builders: object) -> Story:
    """A pool whose first builder is to be replaced while builds run on it, and drains."""
    story = told_story(replicas=1, builders={**V1, **builders})
    story.start(0, *refs)
    story.change(replicas=1, builders={**V2, **builders})
    story.settle()
    assert story.builder(0).state is BuilderState.DRAINING
    return story


# --- states --------------------------------------------------------------------------------------


def test_a_builder_starts_serves_drains_and_is_gone() -> None:
    story = Story(a_pool(replicas=1, builders=V1))
    story.cluster.full = {"ci-builder-0"}
    story.settle()
    assert story.builder(0).state is BuilderState.STARTING
    story.cluster.full = set()
    story.settle()
    serving = story.builder(0)
    assert (serving.state, serving.ready, serving.reason) == (BuilderState.SERVING, True, None)

    story.start(0, "x")
    story.change(replicas=1, builders=V2)
    story.settle()
    draining = story.builder(0)
    assert (draining.state, draining.ready) == (BuilderState.DRAINING, False)
    assert draining.reason == "Outdated"
    assert draining.message == "it does not run what the spec wants any more"
    assert draining.builds == 1
    assert draining.revision != story.builder(1).revision

    story.finish(0)
    story.settle()
    assert story.names() == ["ci-builder-1"]


def test_a_builder_that_just_starts_says_so() -> None:
    story = told_story(replicas=1)
    for entry in story.pod(0)["status"]["conditions"][2:]:
        entry["status"] = "False"
    story.look()
    starting = story.builder(0)
    assert (starting.state, starting.ready) == (BuilderState.STARTING, False)
    assert (starting.reason, starting.message) == ("BuildersStarting", "the builder is starting")


def test_a_builder_that_is_retired_in_this_pass_drains_already() -> None:
    story = told_story(replicas=2)
    story.change(replicas=1)
    verdict = story.look()
    assert (EventType.NORMAL, "RetiredBuilder") in told(verdict)
    retired = story.builder(1)
    assert (retired.state, retired.reason) == (BuilderState.DRAINING, "Surplus")
    assert retired.message == "The pool needs no more than 1 builder."


def test_a_builder_that_drains_for_no_reason_of_its_own_still_says_what_becomes_of_it() -> None:
    story = told_story(replicas=2)
    story.change(replicas=1)
    story.look()
    story.start(1, "late")  # before every node had forgotten its address
    story.settle()
    draining = story.builder(1)
    assert (draining.state, draining.reason) == (BuilderState.DRAINING, "Draining")
    assert draining.message == "it takes no new builds and is removed once it has none"


def test_a_builder_that_serves_again_is_told_and_drains_no_more() -> None:
    story = told_story(replicas=2)
    story.change(replicas=1)
    story.look()
    story.change(replicas=2)
    verdict = story.look()
    assert (EventType.NORMAL, "RestoredBuilder") in told(verdict)
    assert (EventType.NORMAL, "CreatedBuilder") not in told(verdict)
    assert story.builder(1).state is BuilderState.SERVING
    assert verdict.status.ready == "2/2"


def test_a_builder_that_is_removed_in_this_pass_is_reported_no_more() -> None:
    story = told_story(replicas=2)
    story.change(replicas=1)
    story.look()
    story.wait(SETTLE)
    verdict = story.look()
    assert (EventType.NORMAL, "RemovedBuilder") in told(verdict)
    assert story.names() == ["ci-builder-0"]
    assert verdict.status.replicas == 1


def test_trouble_of_a_builder_is_told_before_why_it_drains() -> None:
    story = draining_story("x")
    story.pod(0)["status"]["conditions"][3]["status"] = "False"
    story.pod(0)["status"]["containerStatuses"][0] |= {
        "state": {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off"}},
        "lastState": {"terminated": {"exitCode": 1}},
    }
    story.finish(0)
    story.cluster["Deployment/ci-builder-0"]["metadata"]["annotations"][
        naming.ANNOTATION_RETIRED
    ] = (story.now - SECOND).isoformat()
    story.look()
    assert story.builder(0).state is BuilderState.DRAINING
    assert story.builder(0).reason == "BuilderCrashing"


def test_a_message_without_end_is_cut() -> None:
    story = told_story(replicas=1)
    long_ago = story.now - 3 * HOUR
    story.builds["ci-builder-0"] = tuple(
        RunningBuild(f"build-{n:030}", long_ago) for n in range(500)
    )
    story.look()
    message = story.builder(0).message
    assert message is not None
    assert len(message) == MAX_MESSAGE_CHARACTERS


# --- daemons that do not answer ------------------------------------------------------------------


def test_that_a_daemon_does_not_answer_is_not_that_it_has_no_builds() -> None:
    story = told_story(replicas=1)
    assert story.builder(0).builds == 0
    story.silence(0)
    verdict = story.look()
    assert story.builder(0).builds is None
    assert story.builder(0).state is BuilderState.SERVING, "clients may reach it all the same"
    assert says(verdict, READY) == ("True", "Ready")
    assert verdict.status.busy == "0/2"


@pytest.mark.parametrize("change", [{"replicas": 1}, {"replicas": 2, "builders": V2}])
def test_a_silent_builder_is_never_removed_before_its_time(change: dict[str, object]) -> None:
    story = told_story(replicas=2, builders=V1)
    story.silence(0)
    story.silence(1)
    story.change(**{"builders": V1, **change})
    story.settle()
    story.wait(LIMIT - MINUTE)
    story.settle()
    assert {"ci-builder-0", "ci-builder-1"} <= set(story.names())
    assert story.heard(EventReason.REMOVED_BUILDER, EventReason.BUILD_OVERDUE) == []


def test_a_silent_builder_that_drains_for_too_long_is_reported_and_then_goes() -> None:
    story = draining_story("x")
    story.silence(0)
    story.wait(LIMIT)
    verdict = story.look()
    assert (EventType.WARNING, "BuildOverdue") in told(verdict)
    (message,) = story.heard(EventReason.BUILD_OVERDUE)
    assert message.startswith(
        "ci-builder-0: build (the daemon does not say which) runs for longer than "
    )
    assert "ci-builder-0" in story.names()

    story.wait(NOTICE - MINUTE)
    assert story.look().events == ()
    story.wait(MINUTE)
    verdict = story.look()
    assert told(verdict) == [(EventType.NORMAL, "RemovedBuilder")]
    assert story.names() == ["ci-builder-1"]


def test_a_builder_names_the_builds_that_have_run_longest() -> None:
    story = told_story(replicas=1)
    for number in range(MAX_RUNNING + 2):
        story.start(0, f"build-{9 - number}")
        story.wait(MINUTE)
    story.settle()
    builder = story.builder(0)
    assert builder.builds == MAX_RUNNING + 2
    assert [each.ref for each in builder.running] == [f"build-{9 - n}" for n in range(MAX_RUNNING)]
    assert [each.since for each in builder.running] == sorted(
        each.since for each in builder.running if each.since
    )


# --- builds that outlive their time --------------------------------------------------------------


def test_a_build_that_takes_too_long_is_reported_by_name_and_nothing_is_done_to_it() -> None:
    story = told_story(replicas=1)
    story.start(0, "slow")
    story.settle()
    story.wait(LIMIT)
    at = story.now
    story.start(0, "quick")
    verdict = story.look()
    assert told(verdict) == [(EventType.WARNING, "BuildOverdue")]
    overdue = story.builder(0)
    assert (overdue.state, overdue.ready, overdue.reason) == (
        BuilderState.SERVING,
        True,
        "BuildOverdue",
    )
    assert overdue.overdue_since == at
    assert overdue.message == (
        "build slow runs for longer than builders.maxBuildDuration (2h); nothing is done to it"
        " while its builder is needed"
    )
    assert verdict.events[0].message == f"ci-builder-0: {overdue.message}"
    assert says(verdict, READY) == ("True", "Ready")
    assert says(verdict, PROGRESSING) == ("False", "Settled")

    story.wait(24 * HOUR)
    story.settle()
    assert story.names() == ["ci-builder-0"]
    assert story.heard(EventReason.RETIRED_BUILDER, EventReason.REMOVED_BUILDER) == []


def test_that_a_build_is_overdue_is_told_once_and_since_when_it_was_reported() -> None:
    story = told_story(replicas=1)
    story.start(0, "slow")
    story.wait(LIMIT)
    story.look()
    since = story.builder(0).overdue_since
    story.wait(HOUR)
    assert story.settle().events == ()
    assert story.builder(0).overdue_since == since
    assert len(story.heard(EventReason.BUILD_OVERDUE)) == 1

    story.finish(0)
    story.settle()
    assert story.builder(0).overdue_since is None
    assert story.builder(0).reason is None
    assert story.heard(EventReason.BUILDS_LOST) == []


def test_the_longest_name_that_a_build_may_have_is_told() -> None:
    story = told_story(replicas=1)
    story.start(0, "r" * MAX_NAME_CHARACTERS)
    story.wait(LIMIT)
    story.look()
    assert story.builder(0).overdue == ("r" * MAX_NAME_CHARACTERS,)


def test_a_build_is_not_overdue_a_second_too_early() -> None:
    story = told_story(replicas=1)
    story.start(0, "slow")
    started = story.now
    story.wait(LIMIT - SECOND)
    story.look()
    assert story.builder(0).reason is None
    story.cluster.now = started + LIMIT
    story.look()
    assert story.builder(0).reason == "BuildOverdue"


def test_of_a_build_that_does_not_say_when_it_started_the_retirement_counts() -> None:
    story = told_story(replicas=1, builders=V1)
    story.builds["ci-builder-0"] = (RunningBuild("timeless", None),)
    story.wait(24 * HOUR)
    story.look()
    assert story.builder(0).reason is None
    story.change(replicas=1, builders=V2)
    story.settle()
    story.wait(LIMIT)
    story.look()
    assert story.builder(0).reason == "BuildOverdue"
    assert "build timeless runs" in (story.builder(0).message or "")


@pytest.mark.parametrize("ran_before", [timedelta(0), 100 * MINUTE, 5 * HOUR])
def test_an_overdue_build_is_reported_before_anything_is_done_to_its_builder(
    ran_before: timedelta,
) -> None:
    story = told_story(replicas=1, builders=V1)
    story.start(0, "slow")
    story.wait(ran_before)
    story.change(replicas=1, builders=V2)
    while "ci-builder-0" in story.names():
        story.look()
        story.wait(MINUTE)
        assert len(story.heard(EventReason.BUILD_OVERDUE)) <= 1
    retired, overdue, removed = (
        next(n for n, event in enumerate(story.events) if event.reason is reason)
        for reason in (
            EventReason.RETIRED_BUILDER,
            EventReason.BUILD_OVERDUE,
            EventReason.REMOVED_BUILDER,
        )
    )
    assert overdue < removed
    assert retired < removed
    assert "build slow " in story.events[overdue].message


def test_what_follows_is_told_with_its_time_and_comes_no_sooner() -> None:
    story = draining_story("slow", maxBuildDuration="30m")
    story.wait(30 * MINUTE)
    at = story.now
    story.look()
    message = story.builder(0).message or ""
    assert message == (
        "build slow runs for longer than builders.maxBuildDuration (30m); its builder is to go:"
        f" its pod is deleted at {at + NOTICE:%Y-%m-%dT%H:%M:%SZ} at the earliest and ends it 30m"
        " later"
    )
    story.cluster.now = at + NOTICE - SECOND
    story.look()
    assert "ci-builder-0" in story.names()
    story.cluster.now = at + NOTICE
    verdict = story.look()
    assert "ci-builder-0" not in story.names()
    (removed,) = (event for event in verdict.events if event.reason == "RemovedBuilder")
    assert "its builds are overdue, and its pod's own grace begins" in removed.message


def test_a_restarted_operator_neither_repeats_a_report_nor_begins_the_notice_anew() -> None:
    story = draining_story("slow")
    story.wait(LIMIT)
    story.look()
    reported = story.builder(0).overdue_since
    again = Story(story.pool, story.cluster, story.builds)
    again.silence(0)
    again.look()
    assert again.builder(0).overdue_since == reported
    assert again.heard(EventReason.BUILD_OVERDUE) == []
    assert reported is not None
    again.cluster.now = reported + NOTICE
    again.look()
    assert again.names() == ["ci-builder-1"]


def test_a_build_that_ends_in_time_leaves_no_trace() -> None:
    story = draining_story("slow")
    story.wait(LIMIT - MINUTE)
    story.finish(0)
    story.settle()
    assert story.names() == ["ci-builder-1"]
    assert story.heard(EventReason.BUILD_OVERDUE, EventReason.BUILDS_LOST) == []
