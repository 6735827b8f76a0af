"""What users ask for by ``buildpool.dev/warm``, which anybody who may change a pool writes."""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from buildpool.core import naming
from buildpool.core.api import Pool
from buildpool.core.api.warmth import (
    MAX_WARMTH,
    Warmth,
    floor_of,
    refusal_of,
    request_for,
    warmth_of,
)
from samples import DAY, NOW, a_pool

SOON = NOW.replace(microsecond=0) + timedelta(minutes=30)


def asked(text: str, **spec: object) -> Pool:
    return a_pool(metadata={"annotations": {naming.ANNOTATION_WARM: text}}, **spec)


@given(builders=st.integers(1, 9999), minutes=st.integers(1, 1440))
def test_what_the_command_asks_for_is_understood(builders: int, minutes: int) -> None:
    warmth = Warmth(builders, SOON + timedelta(minutes=minutes) - timedelta(minutes=30))
    pool = asked(request_for(warmth))
    assert warmth_of(pool, NOW) == warmth
    assert refusal_of(pool, NOW) == ""


def test_its_end_may_be_written_in_any_time_zone() -> None:
    plain = f"{SOON:%Y-%m-%dT%H:%M:%S}"
    shifted = f"2 until {SOON + timedelta(hours=2):%Y-%m-%dT%H:%M:%S}+02:00"
    assert warmth_of(asked(f"2 until {plain}Z"), NOW) == Warmth(2, SOON)
    assert warmth_of(asked(shifted), NOW) == Warmth(2, SOON)


def test_what_is_over_asks_for_nothing_and_is_no_mistake() -> None:
    pool = asked(request_for(Warmth(3, SOON)))
    assert warmth_of(pool, SOON) is None
    assert refusal_of(pool, SOON) == ""
    assert warmth_of(a_pool(), NOW) is None
    assert refusal_of(a_pool(), NOW) == ""


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("3", "says nothing; write it like 3 until 2030-01-31T18:00:00Z."),
        ("0 until 2030-01-31T18:00:00Z", "says nothing"),
        ("-1 until 2030-01-31T18:00:00Z", "says nothing"),
        ("3 until 2030-01-31T18:00:00", "says nothing"),  # of no time zone
        ("3 until 2030-02-31T18:00:00Z", "says nothing"),
        ("3 until 9999-12-31T23:59:59-12:00", "says nothing"),
        ("\u0663 until 2030-01-31T18:00:00Z", "says nothing"),
        (request_for(Warmth(3, NOW + 2 * DAY)), "lasts longer than a day; for so long, raise"),
    ],
)
def test_what_cannot_be_done_is_refused_with_what_helps(text: str, says: str) -> None:
    pool = asked(text)
    assert warmth_of(pool, NOW) is None
    assert says in refusal_of(pool, NOW)


def test_a_number_that_is_set_is_named() -> None:
    pool = asked(request_for(Warmth(3, SOON)), replicas=1)
    assert "spec.replicas is set" in refusal_of(pool, NOW)


def test_a_clock_that_is_ahead_by_a_little_does_no_harm() -> None:
    pool = asked(request_for(Warmth(3, NOW + MAX_WARMTH + timedelta(minutes=1))))
    assert warmth_of(pool, NOW) is not None


@given(text=st.text() | st.from_regex(r"[0-9]{1,6} until [0-9T:.Z+-]{1,50}", fullmatch=True))
def test_nothing_that_is_written_there_breaks_a_pass(text: str) -> None:
    pool = asked(text)
    found = warmth_of(pool, NOW)
    assert len(refusal_of(pool, NOW)) < 200
    assert pool.spec.least <= floor_of(pool.spec, found) <= pool.spec.scaling.max
