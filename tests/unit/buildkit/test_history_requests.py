"""What clients ask of the history: without a ref, and answered as if it were there."""

from __future__ import annotations

import pickle
from collections.abc import Iterable
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from buildpool.buildkit import BuildEventKind, protobuf
from buildpool.buildkit.history import read_event
from buildpool.buildkit.history_requests import EventsOf, without_ref
from buildpool.buildkit.protobuf import WireError
from buildpool.buildkit.solve_requests import frame
from daemons import an_event, field

ACTIVE_ONLY, REF, EARLY_EXIT, FILTER, LIMIT = 1, 2, 3, 4, 5
"""The fields of ``BuildHistoryRequest`` in ``api/services/control/control.proto``."""
MAX_HELD: Final = 500
"""Bytes of what lets events through, with all that it holds."""


def test_a_request_by_ref_becomes_one_by_filter() -> None:
    asked = field(ACTIVE_ONLY, 1) + field(REF, b"mine") + field(EARLY_EXIT, 1) + field(LIMIT, 300)
    rest = field(ACTIVE_ONLY, 1) + field(EARLY_EXIT, 1) + field(LIMIT, 300)
    assert without_ref(asked) == ("mine", rest + field(FILTER, b"ref==mine"))


@pytest.mark.parametrize("ref", ["a,b", 'a"b', "a b", "ref!=x", "x||y"])
def test_a_ref_that_would_be_another_filter_is_looked_for_among_all(ref: str) -> None:
    assert without_ref(field(REF, ref.encode())) == (ref, b"")


def test_what_a_client_filters_by_itself_stays() -> None:
    asked = field(FILTER, b"status==error")
    assert without_ref(field(REF, b"mine") + asked) == ("mine", asked)


@given(
    st.binary()
    | st.lists(st.tuples(st.integers(1, 9), st.binary())).map(
        lambda fields: b"".join(field(*each) for each in fields)
    )
)
def test_whatever_is_asked_no_ref_reaches_a_daemon(message: bytes) -> None:
    try:
        _, kept = without_ref(message)
    except WireError:
        return
    assert REF not in [number for number, _ in protobuf.fields(kept)]


def an_event_of(ref: str, size: int, kind: BuildEventKind = BuildEventKind.COMPLETE) -> bytes:
    """An event whose record goes on for so many bytes after its ref."""
    record = field(1, ref.encode()) + field(3, bytes(size))
    return (field(1, kind) if kind else b"") + field(2, record)


OTHERS: Final = ("other", "m", "mine2", "x" * 200)
READABLE: Final = st.builds(
    an_event_of,
    st.sampled_from(("mine", *OTHERS)),
    st.sampled_from((0, 1, 100, 20_000)),
    st.sampled_from((BuildEventKind.STARTED, BuildEventKind.COMPLETE, BuildEventKind.DELETED)),
)


def passed(stream: bytes, cuts: Iterable[int]) -> bytes:
    """What passes of a stream that comes in pieces of these lengths."""
    passing, found = EventsOf("mine"), b""
    for cut in (*cuts, len(stream)):
        found += passing.passed(stream[:cut])
        stream = stream[cut:]
        assert len(pickle.dumps(passing)) < MAX_HELD
    return found


@given(st.lists(READABLE), st.lists(st.integers(0, 400), max_size=20))
def test_only_the_events_of_a_build_pass_however_the_stream_is_cut(
    events: list[bytes], cuts: list[int]
) -> None:
    mine = [event for event in events if read_event(event).build.ref == "mine"]
    stream = b"".join(map(frame, events))
    assert passed(stream, cuts) == b"".join(map(frame, mine))


@given(
    st.lists(READABLE | st.binary(max_size=40)).map(lambda each: b"".join(map(frame, each)))
    | st.binary(),
    st.lists(st.integers(0, 40), max_size=40),
)
def test_whatever_comes_it_passes_as_it_would_in_one_piece(stream: bytes, cuts: list[int]) -> None:
    assert passed(stream, cuts) == passed(stream, [])


@pytest.mark.parametrize("kind", [BuildEventKind.STARTED, BuildEventKind.COMPLETE])
def test_the_events_of_daemons_begin_with_their_ref(kind: BuildEventKind) -> None:
    mine, other = (frame(an_event(kind, ref)) for ref in ("mine", "other"))
    assert passed(other + mine + other, [1] * 100) == mine


@pytest.mark.parametrize("event", [b"", b"\xff", field(9, b"new") + an_event_of("other", 10)])
def test_what_cannot_be_read_is_left_to_the_client(event: bytes) -> None:
    assert passed(frame(event), []) == frame(event)


@pytest.mark.parametrize("ref", ["mine", "other"])
def test_of_a_long_event_only_the_start_is_held(ref: str) -> None:
    """An event may be as long as its daemon likes."""
    event = frame(an_event_of(ref, 1 << 20))
    cuts = [1000] * 1000
    assert passed(event, cuts) == (event if ref == "mine" else b"")
    passing = EventsOf(ref)
    assert passing.passed(event[:100]) == event[:100]
    assert passing.passed(event[100:]) == event[100:]
