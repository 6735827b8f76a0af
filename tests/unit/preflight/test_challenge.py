from __future__ import annotations

import time
from collections.abc import Callable

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


LONG = {
    "names, and a text that never ends": lambda size: "a " * (size // 3) + '"' + "\\" * size,
    "escapes": lambda size: "a=" + '"\\' * (size // 2),
    "commas": lambda size: "," * size,
    "challenges": lambda size: 'Bearer a="b", ' * (size // 14),
}


@pytest.mark.parametrize("header", LONG.values(), ids=LONG)
def test_the_time_that_a_header_takes_grows_as_its_length(header: Callable[[int], str]) -> None:
    def least(size: int) -> float:
        text, times = header(size), []
        for _ in range(7):
            begun = time.thread_time()
            list(parse(text))
            times.append(time.thread_time() - begun)
        return min(times)

    # Twelve thousand characters are more than a server can send; the tenth of them measures well.
    assert least(12_000) < 30 * max(least(1_200), 1e-4), "or it is more than linear"
