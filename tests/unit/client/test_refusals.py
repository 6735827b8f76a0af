from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from buildpool.client.refusals import MAX_SHOWN_CHARACTERS, one_line, refusal, unmoving
from buildpool.core.errors import KubernetesError, NotFoundError, RefusedError, UnavailableError

SAID: dict[str, tuple[str, type[KubernetesError], str]] = {
    "there is none": (
        'Error from server (NotFound): buildkitpools.buildpool.dev "ci" not found',
        NotFoundError,
        "namespace builds has no pool ci",
    ),
    "there are none of this kind": (
        "Error from server (NotFound): the server could not find the requested resource",
        RefusedError,
        "the cluster does not know BuildKitPools",
    ),
    "no right": (
        'Error from server (Forbidden): User "a" cannot get resource "buildkitpools"',
        RefusedError,
        'you may not read pool ci (User "a" cannot get resource "buildkitpools"); ask for that',
    ),
    "nobody": (
        "Error from server (Unauthorized): who are you",
        RefusedError,
        "log in again",
    ),
    "trouble there": (
        "W1201 deprecated\nError from server (InternalError): etcd\n",
        UnavailableError,
        "try again",
    ),
    "nobody answers": (
        "E1201 12:00 memcache.go:265] x\nUnable to connect to the server: dial tcp: timeout",
        UnavailableError,
        "pool ci cannot be read: Unable to connect to the server: dial tcp: timeout; see what",
    ),
    "nothing": ("", UnavailableError, "kubectl said nothing"),
}


@pytest.mark.parametrize(("said", "kind", "shown"), SAID.values(), ids=SAID)
def test_an_error_of_kubectl_is_understood(
    said: str, kind: type[KubernetesError], shown: str
) -> None:
    found = refusal(said, what="pool ci", namespace="builds")
    assert type(found) is kind
    assert shown in str(found)


@given(st.text())
def test_what_others_say_moves_no_cursor(text: str) -> None:
    for shown in (one_line(text), str(refusal(text, what="pool ci", namespace="builds"))):
        assert shown.isprintable()
    assert len(one_line(text)) <= MAX_SHOWN_CHARACTERS + 1


@given(st.text())
def test_an_explanation_moves_no_cursor_either(text: str) -> None:
    assert unmoving(text).replace("\n", "").isprintable()
    assert unmoving(text).count("\n") == text.count("\n")
