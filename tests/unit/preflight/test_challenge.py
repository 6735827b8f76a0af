from __future__ import annotations

import pytest

from buildpool.preflight.challenge import Challenge, best, parse

BEARER = Challenge(
    "bearer", {"realm": "https://a.io/token", "service": "r", "scope": "x:pull,push"}
)

HEADERS = {
    "Docker Hub": 'Bearer realm="https://a.io/token",service="r",scope="x:pull,push"',
    "blanks and no quotes": 'bearer  realm=https://a.io/token , service = r, scope="x:pull,push"',
    "an escape": 'Bearer realm="https:\\/\\/a.io/token",service="r",scope="x:pull,push"',
    "after another": (
        'Basic realm="x, y", Bearer realm="https://a.io/token",service=r,scope="x:pull,push"'
    ),
    "before garbage": (
        'Bearer realm="https://a.io/token",service="r",scope="x:pull,push","nonsense'
    ),
}


@pytest.mark.parametrize("header", HEADERS.values(), ids=HEADERS.keys())
def test_a_challenge_is_read(header: str) -> None:
    assert best([header]) == BEARER


def test_a_token_goes_before_a_password_whatever_the_order() -> None:
    basic, bearer = Challenge("basic", {"realm": "x"}), Challenge("bearer", {"realm": "y"})
    assert best(["Basic realm=x", "Bearer realm=y"]) == bearer
    assert best(["Bearer realm=y, Basic realm=x"]) == bearer
    assert best(["Negotiate", "Basic realm=x"]) == basic


@pytest.mark.parametrize("header", ["", "Negotiate", "NTLM abc==", '"', 'realm="x"', "=,=", ",,,"])
def test_what_is_of_no_use(header: str) -> None:
    assert best([header]) is None


def test_the_longest_header_that_a_server_can_send_is_read_at_once() -> None:
    list(parse("a " * 4000 + '"' + "\\" * 8000))
    list(parse("a=" + '"\\' * 4000))
