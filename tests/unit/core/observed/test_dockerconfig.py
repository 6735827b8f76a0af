from __future__ import annotations

import json
from base64 import b64encode

import pytest

from buildpool.core.observed.cache import Credentials
from buildpool.core.observed.dockerconfig import parse_credentials

JOE = Credentials("joe", "sword:fish")
AUTH = b64encode(b"joe:sword:fish").decode()


def a_config(**auths: object) -> bytes:
    return json.dumps({"auths": auths}).encode()


SPELLINGS = {
    "the host itself": ("r.io:5000", "r.io:5000"),
    "a URL": ("https://r.io:5000", "r.io:5000"),
    "a URL of the old protocol": ("https://r.io/v1/", "r.io"),
    "plain HTTP": ("http://r.io", "r.io"),
    "upper case": ("R.io", "r.io"),
    "docker.io as docker writes it": ("https://index.docker.io/v1/", "docker.io"),
    "docker.io itself": ("docker.io", "docker.io"),
    "docker.io where it is served": ("registry-1.docker.io", "docker.io"),
}


@pytest.mark.parametrize(("key", "host"), SPELLINGS.values(), ids=SPELLINGS.keys())
def test_the_host_is_found_however_it_is_spelled(key: str, host: str) -> None:
    assert parse_credentials(a_config(**{key: {"auth": AUTH}}), host) == JOE


@pytest.mark.parametrize("key", ["r.io", "r.io:5001", "other.r.io", "https://elsewhere.io/r.io"])
def test_another_host_is_not_taken_for_it(key: str) -> None:
    assert parse_credentials(a_config(**{key: {"auth": AUTH}}), "r.io:5000") is None


def test_the_plainest_spelling_wins() -> None:
    config = a_config(
        **{"https://r.io/v1/": {"username": "old", "password": "x"}, "r.io": {"auth": AUTH}}
    )
    assert parse_credentials(config, "r.io") == JOE


ENTRIES = {
    "a user and password": {"username": "joe", "password": "sword:fish"},
    "auth wins over them": {"username": "x", "password": "y", "auth": AUTH},
    "an empty auth beside them": {"username": "joe", "password": "sword:fish", "auth": ""},
    "base64 without padding": {"auth": AUTH.rstrip("=")},
    "base64 with line ends": {"auth": f"{AUTH[:4]}\n{AUTH[4:]}\n"},
}


@pytest.mark.parametrize("entry", ENTRIES.values(), ids=ENTRIES.keys())
def test_what_an_entry_may_be(entry: dict[str, str]) -> None:
    assert parse_credentials(a_config(**{"r.io": entry}), "r.io") == JOE


SECRET = "hunter2"
GARBAGE = {
    "no JSON": (f'{{"password": "{SECRET}"'.encode(), "not JSON"),
    "bytes": (b"\xff\xfe" + SECRET.encode(), "not JSON"),
    "a deep hole": (b"[" * 100_000, "not JSON"),
    "a list": (b"[]", "auths"),
    "the format before it": (json.dumps({"r.io": {"auth": SECRET}}).encode(), "auths"),
    "an entry that is a string": (a_config(**{"r.io": SECRET}), "object"),
    "an empty entry": (a_config(**{"r.io": {}}), "no username and password"),
    "a token": (a_config(**{"r.io": {"identitytoken": SECRET}}), "identity token"),
    "no base64": (a_config(**{"r.io": {"auth": f"{SECRET}!"}}), "base64"),
    "base64 of no pair": (a_config(**{"r.io": {"auth": "aHVudGVyMg=="}}), "base64"),
    "an auth that is a number": (a_config(**{"r.io": {"auth": 7}}), "base64"),
    "a password that is a number": (a_config(**{"r.io": {"username": "joe", "password": 7}}), "no"),
    "half a character": (
        a_config(**{"r.io": {"username": "\ud800", "password": SECRET}}),
        "in the entry for r.io, the username or the password is no valid text",
    ),
}


@pytest.mark.parametrize(("data", "words"), GARBAGE.values(), ids=GARBAGE.keys())
def test_garbage_is_refused_in_words_that_do_not_quote_it(data: bytes, words: str) -> None:
    with pytest.raises(ValueError, match=words) as caught:
        parse_credentials(data, "r.io")
    assert SECRET not in str(caught.value)
    assert caught.value.__suppress_context__ or caught.value.__context__ is None
