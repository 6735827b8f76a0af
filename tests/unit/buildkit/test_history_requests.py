"""What clients ask of the history: without a ref, and answered as if it were there."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from buildpool.buildkit import BuildEventKind, protobuf
from buildpool.buildkit.history_requests import MAX_EVENT, EventsOf, without_ref
from buildpool.buildkit.protobuf import WireError
from buildpool.buildkit.solve_requests import frame
from daemons import an_event, field

ACTIVE_ONLY, REF, EARLY_EXIT, FILTER, LIMIT = 1, 2, 3, 4, 5
"""The fields of ``BuildHistoryRequest`` in ``api/services/control/control.proto``."""


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


@given(
    st.lists(st.sampled_from(["mine", "other", "m"])),
    st.lists(st.integers(1, 400), max_size=20),
)
def test_only_the_events_of_a_build_pass_however_the_stream_is_cut(
    refs: list[str], cuts: list[int]
) -> None:
    events = [frame(an_event(BuildEventKind.COMPLETE, ref)) for ref in refs]
    stream, passing, passed = b"".join(events), EventsOf("mine"), b""
    for cut in (*cuts, len(stream)):
        passed += passing.passed(stream[:cut])
        stream = stream[cut:]
    assert passed == b"".join(e for e, ref in zip(events, refs, strict=True) if ref == "mine")


def test_what_cannot_be_read_is_left_to_the_client_and_nothing_is_kept_without_bound() -> None:
    assert EventsOf("mine").passed(frame(b"\xff")) == frame(b"\xff")
    events, head = EventsOf("mine"), b"\0" + (MAX_EVENT + 1).to_bytes(4, "big")
    assert events.passed(head) == head
    assert events.passed(b"more") == b"more"
