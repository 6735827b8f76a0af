from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from buildpool.client.refusals import (
    MAX_SHOWN_CHARACTERS,
    Hearing,
    one_line,
    refusal,
    unmoving,
)
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


def heard(*pieces: str) -> tuple[list[str], str]:
    """What are errors of what kubectl says, piece by piece, and what is shown at the end."""
    hearing = Hearing()
    shown = "".join(hearing.hear(piece) for piece in pieces)
    return hearing.errors, shown + hearing.end()


def test_a_prompt_is_shown_before_its_line_ends() -> None:
    hearing = Hearing()
    assert hearing.hear("Err") == ""
    assert hearing.hear("and: enter the code ") == "Errand: enter the code "
    assert hearing.hear("ABC: ") == "ABC: "
    assert hearing.errors == []


def test_a_prompt_after_an_error_is_shown_too() -> None:
    error = "E1201 12:00 memcache.go:265] who are you"
    said = (f"{error}\nPassword: ", "\nError from server (Forbidden): no")
    assert heard(*said) == ([error, "Error from server (Forbidden): no"], "Password: \n")


def test_an_answer_of_several_lines_is_not_shown_as_it_is() -> None:
    answer = "Error from server (Forbidden): no\n\x1b[31mred\n"
    assert heard(answer) == (answer.splitlines(), "")


LINES = st.lists(
    st.sampled_from(["error: a", "Error from server (X): b", "E1201 c", "Enter", "E12", "", "err"])
    | st.text(max_size=10),
    max_size=5,
).map("\n".join)


@given(LINES, st.lists(st.integers(0, 40), max_size=6))
def test_however_it_is_cut_the_same_is_heard(text: str, cuts: list[int]) -> None:
    edges = [0, *sorted(cuts), len(text)]
    pieces = [text[a:b] for a, b in pairwise(edges)]
    errors, shown = heard(*pieces)
    assert (errors, shown) == heard("".join(pieces))
    assert len(shown) + sum(map(len, errors)) <= len(text)
