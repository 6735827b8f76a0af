from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from buildpool.core.api.status import (
    MAX_TEXT_CHARACTERS,
    AuthorityStatus,
    BuilderState,
    BuilderStatus,
    Condition,
    ConditionStatus,
    PoolStatus,
    ScalingStatus,
    format_time,
    set_condition,
)

NOW = datetime(2030, 1, 2, 3, 4, 5, tzinfo=UTC)
LATER = NOW + timedelta(hours=1)


def a_condition(**overrides: object) -> Condition:
    values = {"type": "Ready", "status": "True", "reason": "Ready", "message": "2 of 2 builders"}
    return Condition.model_validate(values | overrides)


@given(st.datetimes(timezones=st.timezones() | st.just(UTC)))
def test_every_moment_is_written_so_that_the_cluster_takes_it(moment: datetime) -> None:
    """Whatever stands in a status, written back in full, is taken: RFC 3339."""
    written = format_time(moment)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", written)
    assert abs(datetime.fromisoformat(written) - moment) < timedelta(days=1)


@pytest.mark.parametrize(
    ("stored", "written"),
    [
        ("0001-01-01T00:00:00Z", "0001-01-01T00:00:00Z"),
        ("0001-01-01T00:00:00+05:00", "0001-01-01T00:00:00Z"),
        ("9999-12-31T23:59:59-05:00", "9999-12-31T23:59:59Z"),
    ],
)
def test_the_ends_of_time_are_written_as_they_are(stored: str, written: str) -> None:
    assert format_time(datetime.fromisoformat(stored)) == written


def test_a_new_condition_has_changed_just_now() -> None:
    (condition,) = set_condition((), a_condition(), NOW)
    assert condition.last_transition_time == NOW


def test_another_status_moves_the_transition_time() -> None:
    old = set_condition((), a_condition(), NOW)
    (condition,) = set_condition(old, a_condition(status="False"), LATER)
    assert condition.last_transition_time == LATER


def test_another_reason_is_reported_without_moving_the_transition_time() -> None:
    old = set_condition((), a_condition(), NOW)
    (condition,) = set_condition(old, a_condition(reason="Other", message="text"), LATER)
    assert (condition.reason, condition.message) == ("Other", "text")
    assert condition.last_transition_time == NOW


def test_conditions_of_other_types_stay_as_they_are() -> None:
    others = set_condition((), a_condition(type="Accepted"), NOW)
    accepted, ready = set_condition(others, a_condition(), LATER)
    assert (accepted,) == others
    assert ready.type == "Ready"


statuses = st.lists(st.sampled_from(ConditionStatus), min_size=1, max_size=12)


@given(statuses)
def test_the_transition_time_moves_exactly_when_the_status_does(
    history: list[ConditionStatus],
) -> None:
    conditions: tuple[Condition, ...] = ()
    changed, previous = NOW, None
    for hour, status in enumerate(history):
        now = NOW + timedelta(hours=hour)
        changed = changed if status is previous else now
        previous = status
        conditions = set_condition(conditions, a_condition(status=status, message=str(hour)), now)
        assert conditions[0].last_transition_time == changed


def test_a_status_survives_being_written_and_read() -> None:
    status = PoolStatus(
        observed_generation=3,
        conditions=set_condition((), a_condition(), NOW),
        ready="2/2",
        replicas=2,
        ready_replicas=2,
        busy="3/4",
        busy_slots=3,
        slots=4,
        scaling=ScalingStatus(
            size=2, reason="FollowsLoad", since=NOW, calm_since=LATER, peak=1, message="3 builds."
        ),
        builders=(
            BuilderStatus(
                name="ci-builder-0",
                state=BuilderState.DRAINING,
                ready=False,
                revision="abc",
                builds=2,
                served=7,
                overdue_since=LATER,
                reason="BuildOverdue",
                message="build x runs for too long",
            ),
        ),
        authority=AuthorityStatus(not_after=LATER, phase="Introducing", since=NOW),
    )
    assert PoolStatus.read(status.to_dict()) == status


def test_that_no_build_runs_is_not_that_nobody_knows() -> None:
    written = [
        BuilderStatus(name="ci-builder-0", ready=True, revision="a", builds=builds).to_dict()
        for builds in (0, None)
    ]
    assert [entry.get("builds", "not said") for entry in written] == [0, "not said"]
    assert [BuilderStatus.model_validate(entry).builds for entry in written] == [0, None]


def test_a_status_of_another_version_is_read_as_far_as_it_is_known() -> None:
    assert PoolStatus.read({"ready": "1/1", "waiting": 4}).ready == "1/1"
    builder = {"name": "ci-builder-0", "ready": True, "revision": "a", "mood": "good"}
    (read,) = PoolStatus.read({"builders": [builder]}).builders
    assert (read.state, read.builds, read.overdue_since) == (BuilderState.STARTING, None, None)


def test_a_status_that_cannot_be_read_is_reported_anew() -> None:
    assert PoolStatus.read({"replicas": "many"}) == PoolStatus()
    assert PoolStatus.read(None) == PoolStatus()


def test_a_text_too_long_for_the_status_is_cut_and_says_so() -> None:
    condition = a_condition(message="x" * 10_000)
    assert len(condition.message) == MAX_TEXT_CHARACTERS
    assert condition.message.endswith("…")


def test_times_are_written_in_utc_and_whole_seconds() -> None:
    moment = datetime(2030, 1, 1, 1, 0, 0, 999, tzinfo=timezone(timedelta(hours=2)))
    assert format_time(moment) == "2029-12-31T23:00:00Z"
