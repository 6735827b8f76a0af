from __future__ import annotations

import uuid
from collections import Counter
from datetime import UTC, datetime, timedelta
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from buildpool.core.pauses import SPREAD_SHARE, Pause, growing, lot, spread

numbers = st.floats(0.01, 1e6)


@given(numbers, numbers, st.integers(0, 10**9))
def test_pauses_grow_and_never_beyond_the_last(first: float, last: float, failures: int) -> None:
    pauses = [growing(number, first=first, last=last) for number in (failures, failures + 1)]
    assert pauses[0] <= pauses[1] <= last


def test_a_pause_is_doubled_each_time() -> None:
    pauses = [growing(number, first=5.0, last=60.0) for number in range(1, 7)]
    assert pauses == [5, 10, 20, 40, 60, 60]
    assert all(before <= after for before, after in pairwise(pauses))


@given(numbers, st.floats(0, 1))
def test_chance_makes_a_pause_shorter_but_not_much(seconds: float, chance: float) -> None:
    assert (1 - SPREAD_SHARE) * seconds <= spread(seconds, chance=chance) * (1 + 1e-9)
    assert spread(seconds, chance=chance) <= seconds


def test_lots_are_as_if_by_chance_and_stay() -> None:
    lots = [lot(str(uuid.UUID(int=number))) for number in range(1000)]
    assert lots == [lot(str(uuid.UUID(int=number))) for number in range(1000)]
    tenths = Counter(int(each * 10) for each in lots)
    assert sorted(tenths) == list(range(10))
    assert all(70 < count < 130 for count in tenths.values())


def test_a_pause_grows_once_it_is_over_however_often_somebody_is_woken() -> None:
    now = datetime(2026, 11, 30, tzinfo=UTC)
    first, last = timedelta(seconds=10), timedelta(seconds=35)
    pause, waits = None, []
    for _ in range(4):
        pause = Pause.after(pause, first=first, last=last, now=now, chance=0.0)
        early = pause.until - timedelta(microseconds=1)
        assert Pause.after(pause, first=first, last=last, now=early, chance=0.0) == pause
        waits.append((pause.until - now).total_seconds())
        now = pause.until
    assert waits == [10, 20, 35, 35]


def test_pauses_of_many_that_failed_together_end_at_many_moments() -> None:
    now = datetime(2026, 11, 30, tzinfo=UTC)
    first, last = timedelta(seconds=10), timedelta(minutes=5)
    for before in (None, Pause(9, now)):
        ends = {
            Pause.after(before, first=first, last=last, now=now, chance=chance / 10).until
            for chance in range(10)
        }
        assert len(ends) == 10
        assert max(ends) <= now + last
