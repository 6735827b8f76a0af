"""The records of many daemons, merged: what one daemon would answer that had them all."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from itertools import chain

import pytest
from hypothesis import given
from hypothesis import strategies as st

from buildpool.buildkit import BuildEvent, BuildEventKind
from buildpool.buildkit.history_merge import merged, within
from buildpool.core.observed.load import RunningBuild

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
STARTED, COMPLETE = BuildEventKind.STARTED, BuildEventKind.COMPLETE


def one_daemon(builds: Sequence[BuildEvent], limit: int) -> list[BuildEvent]:
    """What BuildKit does, line by line: ``Listen`` and ``filterHistoryEvents`` of 0.34.

    The order of those that run is that of a map in Go, which is none.
    """
    told = [build for build in builds if build.kind is STARTED]
    database = {build.build.ref.encode(): build for build in builds if build.kind is COMPLETE}
    out = [database[key] for key in sorted(database)]
    if limit != 0:
        out.sort(key=lambda event: (event.build.started or EPOCH) - EPOCH, reverse=True)
        out = out[:limit]
    return told + out


@st.composite
def pools(draw: st.DrawFn) -> list[list[BuildEvent]]:
    """Daemons with builds, each of which has a name and a start of its own."""
    numbers = draw(st.lists(st.integers(0, 10**6), unique=True, max_size=30))
    kinds = st.sampled_from((STARTED, COMPLETE, COMPLETE))
    refs = draw(st.lists(st.text("ab0z", min_size=1), unique=True, min_size=len(numbers)))
    builds = [
        BuildEvent(draw(kinds), RunningBuild(ref, EPOCH + timedelta(seconds=number) or None))
        for ref, number in zip(refs, numbers, strict=False)
    ]
    daemons: list[list[BuildEvent]] = [[] for _ in range(draw(st.integers(1, 5)))]
    for build in builds:
        draw(st.sampled_from(daemons)).append(build)
    return daemons


@given(pools(), st.integers(0, 12))
def test_what_many_daemons_list_is_merged_to_what_one_would_list(
    daemons: list[list[BuildEvent]], limit: int
) -> None:
    answers = [one_daemon(daemon, limit) for daemon in daemons]
    expected = one_daemon(list(chain.from_iterable(daemons)), limit)
    found = merged(answers, limit=limit)
    running = sum(event.kind is STARTED for event in found)
    assert found[running:] == expected[running:]
    assert set(found[:running]) == set(expected[:running])


@given(pools(), st.integers(0, 12))
def test_it_matters_in_no_way_who_answers_first(
    daemons: list[list[BuildEvent]], limit: int
) -> None:
    ended = [[event for event in daemon if event.kind is COMPLETE] for daemon in daemons]
    assert merged(ended, limit=limit) == merged(reversed(ended), limit=limit)


@given(pools(), st.integers(0, 12))
def test_answers_can_be_merged_one_by_one_as_they_come(
    daemons: list[list[BuildEvent]], limit: int
) -> None:
    answers = [one_daemon(daemon, limit) for daemon in daemons]
    found: list[BuildEvent] = []
    for answer in answers:
        found = merged([found, answer], limit=limit)
    assert found == merged(answers, limit=limit)


@pytest.mark.parametrize("limit", [0, 3])
def test_a_build_of_which_several_tell_is_listed_once(limit: int) -> None:
    first, second = (
        BuildEvent(COMPLETE, RunningBuild("a", EPOCH), steps=(number, 9)) for number in (1, 2)
    )
    assert merged([[first], [second]], limit=limit) == [first]


@pytest.mark.parametrize("limit", [0, 3])
def test_a_build_without_a_start_is_older_than_all(limit: int) -> None:
    old = BuildEvent(COMPLETE, RunningBuild("z", None))
    young = BuildEvent(COMPLETE, RunningBuild("a", EPOCH + timedelta(days=1)))
    assert merged([[old], [young]], limit=limit) == [young, old]


def test_a_list_has_room_for_so_many_bytes() -> None:
    events = [BuildEvent(COMPLETE, RunningBuild(ref, None), message=b"1234") for ref in "abc"]
    assert within(events, 8) == events[:2]
    assert within(events, 7) == events[:1]
    assert within([], 0) == []
    long = BuildEvent(COMPLETE, RunningBuild("0", None), message=b"12345")
    assert within([long, *events], 4) == events[:1], "one that is too long hides no other"
