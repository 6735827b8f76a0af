from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from buildpool.core.pauses import SPREAD, growing, spread

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
    assert (1 - SPREAD) * seconds <= spread(seconds, chance=chance) * (1 + 1e-9)
    assert spread(seconds, chance=chance) <= seconds
