"""What Envoy says about requests."""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from buildpool.gateway.ext_proc.calls import CallKind, read_call, read_deadline
from unit.gateway.requests import a_request

DEADLINES = {
    "20S": timedelta(seconds=20),
    "19999871u": timedelta(seconds=19, microseconds=999871),
    "2M": timedelta(minutes=2),
    "99999999H": timedelta(hours=99999999),
    "5000000n": timedelta(milliseconds=5),
    "": None,
    "S": None,
    "20": None,
    "20s": None,
    "-1S": None,
    "123456789S": None,
    "\u0662S": None,
}


@pytest.mark.parametrize(("written", "read"), DEADLINES.items())
def test_a_deadline_is_read_as_grpc_writes_it(written: str, read: timedelta | None) -> None:
    assert read_deadline(written) == read


@given(st.text())
def test_no_deadline_is_too_odd_to_be_read(written: str) -> None:
    found = read_deadline(written)
    assert found is None or found >= timedelta(0)


@pytest.mark.parametrize(
    ("deadline", "kind"),
    [("", CallKind.HELLO), ("31S", CallKind.HELLO), ("30S", CallKind.LOOK), ("?", CallKind.HELLO)],
)
def test_a_hello_that_gives_up_soon_is_no_build(deadline: str, kind: CallKind) -> None:
    headers = {"grpc-timeout": deadline} if deadline else {}
    assert read_call(a_request(**headers)).kind is kind


TRACED = {"traceparent": "00-a7ef407337275e9c68174b98a1630036-3870fdab9e18b99f-01"}


@pytest.mark.parametrize(
    ("headers", "kind"),
    [
        ({":scheme": "http"}, CallKind.BROWSE),
        ({":scheme": "http", "grpc-timeout": "20S"}, CallKind.LOOK),
        ({":scheme": "http", **TRACED}, CallKind.HELLO),
        ({":scheme": "https"}, CallKind.HELLO),
        ({":scheme": "https", **TRACED}, CallKind.HELLO),
        ({}, CallKind.HELLO),
    ],
)
def test_buildx_traces_each_build_and_no_look_at_what_was_built(
    headers: dict[str, str], kind: CallKind
) -> None:
    assert read_call(a_request(**headers)).kind is kind


def test_only_a_hello_is_taken_for_a_look() -> None:
    session = a_request("/moby.buildkit.v1.Control/Session", **{":scheme": "http"})
    assert read_call(session).kind is CallKind.SESSION
