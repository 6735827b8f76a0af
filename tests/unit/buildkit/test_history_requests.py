"""What clients ask of the history: without a ref, and answered as if it were there."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from buildpool.buildkit import protobuf
from buildpool.buildkit.history import RUNNING_BUILDS
from buildpool.buildkit.history_requests import HistoryRequest, read_request
from buildpool.buildkit.protobuf import WireError
from daemons import field

ACTIVE_ONLY, REF, EARLY_EXIT, FILTER, LIMIT = 1, 2, 3, 4, 5
"""The fields of ``BuildHistoryRequest`` in ``api/services/control/control.proto``."""


def test_a_request_is_read_as_its_client_means_it() -> None:
    asked = (
        field(ACTIVE_ONLY, 1)
        + field(REF, b"mine")
        + field(EARLY_EXIT, 1)
        + field(FILTER, b"status==error")
        + field(FILTER, b"duration>5s")
        + field(LIMIT, 300)
        + field(9, b"new")
    )
    assert read_request(asked) == HistoryRequest(
        ref="mine",
        is_active_only=True,
        has_end=True,
        filters=(b"status==error", b"duration>5s"),
        limit=300,
        rest=field(9, b"new"),
    )
    assert read_request(b"") == HistoryRequest(has_end=False)
    assert read_request(field(LIMIT, 5) + field(LIMIT, 7) + field(EARLY_EXIT, 0)).limit == 7
    assert read_request(field(LIMIT, -3)).limit == -3


def test_a_request_by_ref_becomes_one_by_filter() -> None:
    by_ref = HistoryRequest(ref="mine", limit=50)
    assert by_ref.for_daemon() == field(EARLY_EXIT, 1) + field(FILTER, b"ref==mine")


def test_a_filter_beside_a_ref_has_to_be_true_too() -> None:
    asked = HistoryRequest(ref="mine", filters=(b"status==error", b"duration>5s", b""))
    kept = [value for number, value in protobuf.fields(asked.for_daemon()) if number == FILTER]
    assert kept == [b"status==error,ref==mine", b"duration>5s,ref==mine", b""]


@pytest.mark.parametrize("ref", ["a,b", 'a"b', "a b", "ref!=x", "x||y"])
def test_a_ref_that_would_be_another_filter_is_looked_for_among_all(ref: str) -> None:
    assert HistoryRequest(ref=ref, limit=50).for_daemon() == field(EARLY_EXIT, 1)


def test_a_limit_that_a_daemon_refuses_reaches_it() -> None:
    request = field(EARLY_EXIT, 1) + field(LIMIT, -3)
    assert read_request(request).for_daemon() == request
    assert field(LIMIT, -3) in HistoryRequest(ref="mine", limit=-3).for_daemon()


def test_builds_that_run_are_asked_for_as_the_gateway_does() -> None:
    assert HistoryRequest(is_active_only=True, has_end=False).for_daemon() == RUNNING_BUILDS


@given(
    st.binary()
    | st.lists(st.tuples(st.integers(1, 9), st.binary() | st.integers(0, 2**64 - 1))).map(
        lambda fields: b"".join(field(*each) for each in fields)
    )
)
def test_whatever_is_asked_a_daemon_is_asked_for_an_end_and_for_no_ref(message: bytes) -> None:
    try:
        request = read_request(message)
    except WireError:
        return
    kept = dict(protobuf.fields(request.for_daemon()))
    assert REF not in kept
    assert kept[EARLY_EXIT] == 1
    assert -(2**31) <= request.limit < 2**31
