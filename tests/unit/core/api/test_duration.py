from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from buildpool.core.api.duration import format_duration, parse_duration

SPELLINGS = {
    "45s": timedelta(seconds=45),
    "2h30m": timedelta(hours=2, minutes=30),
    "48h": timedelta(days=2),
    "90d": timedelta(days=90),
    "8d1h": timedelta(days=8, hours=1),
    "0s": timedelta(0),
}


@pytest.mark.parametrize(("text", "span"), SPELLINGS.items())
def test_a_duration_is_read_and_written_alike(text: str, span: timedelta) -> None:
    assert parse_duration(text) == span
    assert format_duration(span) == text


@pytest.mark.parametrize(
    "text", ["", "5", "1m1h", "1.5h", "-1h", "1w", "1h ", "1h\n", "1h1h", "٣h"]
)
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not a duration"):
        parse_duration(text)


@given(st.integers(min_value=0, max_value=10**10))
def test_every_span_survives_being_written_and_read(seconds: int) -> None:
    span = timedelta(seconds=seconds)
    assert parse_duration(format_duration(span)) == span
