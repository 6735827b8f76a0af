"""What users ask for by ``buildpool.dev/cancel``, which anybody who may change a pool writes."""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from buildpool.core import naming
from buildpool.core.api import Pool
from buildpool.core.api.cancellation import (
    CANCELS_FOR,
    MAX_REFS,
    REF,
    cancellation_in,
    refusal_of,
    request_for,
)
from samples import NOW, a_pool

SOON = NOW.replace(microsecond=0) + CANCELS_FOR
refs = st.sets(st.from_regex(REF, fullmatch=True), min_size=1, max_size=MAX_REFS)


def asked(text: str, routing: str = "Gateway") -> Pool:
    return a_pool(metadata={"annotations": {naming.ANNOTATION_CANCEL: text}}, routing=routing)


@given(refs=refs)
def test_what_the_command_asks_for_is_understood(refs: set[str]) -> None:
    text = request_for(refs, SOON)
    found = cancellation_in(text, NOW)
    assert found is not None
    assert (found.refs, found.until) == (refs, SOON)
    assert refusal_of(asked(text), NOW) == ""


def test_what_is_over_asks_for_nothing_and_is_no_mistake() -> None:
    text = request_for({"ref"}, SOON)
    assert cancellation_in(text, SOON) is None
    assert refusal_of(asked(text), SOON) == ""
    assert cancellation_in(None, NOW) is None
    assert refusal_of(a_pool(), NOW) == ""


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("ref", "says nothing; use kubectl buildpool cancel."),
        ("ref, other until 2030-01-31T18:00:00Z", "says nothing"),
        ("../ref until 2030-01-31T18:00:00Z", "says nothing"),
        (request_for({f"ref{n}" for n in range(MAX_REFS + 1)}, SOON), "says nothing"),
        (request_for({"ref"}, NOW + timedelta(hours=1)), "counts for too long"),
    ],
)
def test_what_cannot_be_done_is_refused_with_what_helps(text: str, says: str) -> None:
    assert cancellation_in(text, NOW) is None
    assert says in refusal_of(asked(text), NOW)


def test_a_pool_without_a_gateway_is_named() -> None:
    text = request_for({"ref"}, SOON)
    assert "only the gateway can end builds" in refusal_of(asked(text, routing="Direct"), NOW)


@given(text=st.text() | st.from_regex(r"[a-z,.]{1,20} until [0-9T:.Z+-]{1,50}", fullmatch=True))
def test_nothing_that_is_written_there_breaks_anything(text: str) -> None:
    assert len(refusal_of(asked(text), NOW)) < 200
    found = cancellation_in(text, NOW)
    assert found is None or all(map(REF.fullmatch, found.refs))
