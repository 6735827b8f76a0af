from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from datetime import timedelta

from hypothesis import given
from hypothesis import strategies as st

from chaos.schedule import (
    GATEWAY_ROUND,
    LONGEST_PAUSE,
    RARE,
    ROUND,
    SHORTEST_PAUSE,
    Kind,
    Step,
    schedule,
)

SEEDS = st.integers(0, 2**32)
ROUNDS = st.sampled_from([ROUND, GATEWAY_ROUND])


@given(SEEDS, st.integers(0, 60))
def test_a_seed_is_one_schedule(seed: int, count: int) -> None:
    assert schedule(seed, count) == schedule(seed, count)


@given(SEEDS, st.integers(0, 60), st.integers(0, 60))
def test_a_longer_schedule_begins_with_the_shorter_one(seed: int, some: int, more: int) -> None:
    assert schedule(seed, some + more)[:some] == schedule(seed, some)


@given(SEEDS)
def test_other_seeds_are_other_schedules(seed: int) -> None:
    assert schedule(seed, 25) != schedule(seed + 1, 25)


@given(SEEDS, ROUNDS)
def test_every_round_has_every_kind_as_often_as_it_says(
    seed: int, round_: Mapping[Kind, int]
) -> None:
    usual = {kind: times for kind, times in round_.items() if kind not in RARE}
    kinds = [step.kind for step in schedule(seed, 3 * sum(round_.values()), round_)]
    first, length = sum(round_.values()), sum(usual.values())
    assert Counter(kinds[:first]) == round_
    for start in (first, first + length):
        assert Counter(kinds[start : start + length]) == usual
    assert kinds[first + 2 * length :].count(Kind.KILL_API) <= 1


def test_no_kind_is_left_out() -> None:
    assert set(GATEWAY_ROUND) == set(Kind)


@given(SEEDS, ROUNDS)
def test_the_short_schedule_has_every_kind(seed: int, round_: Mapping[Kind, int]) -> None:
    assert {step.kind for step in schedule(seed, 20, round_)} == set(round_)


@given(SEEDS)
def test_steps_are_numbered_and_neither_crowded_nor_far_apart(seed: int) -> None:
    steps = schedule(seed, 40)
    assert [step.number for step in steps] == list(range(1, 41))
    assert all(SHORTEST_PAUSE <= step.pause <= LONGEST_PAUSE for step in steps)


@given(st.floats(0, 1, exclude_max=True), st.integers(1, 20))
def test_a_draw_is_always_one_of_those_there_are(draw: float, count: int) -> None:
    assert 0 <= Step(1, Kind.DELETE, timedelta(0), draw).among(count) < count


def test_the_draws_of_a_schedule_reach_all_of_them() -> None:
    assert {step.among(4) for step in schedule(1, 60)} == {0, 1, 2, 3}


def test_a_schedule_is_the_same_in_every_version_of_this_code() -> None:
    """Else a seed in a report says nothing. Whoever changes kinds or rounds changes this, too."""
    assert [step.kind for step in schedule(1, 6)] == [
        Kind.SCALE_DOWN,
        Kind.KILL_OPERATOR,
        Kind.SCALE_UP,
        Kind.DELETE,
        Kind.ENV,
        Kind.IMAGE,
    ]
