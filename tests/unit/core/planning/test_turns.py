"""Whose turn it is to replace builders by the operator's doing."""

from __future__ import annotations

from datetime import timedelta

from hypothesis import given
from hypothesis import strategies as st

from buildpool.core.naming import PoolKey
from buildpool.core.planning.turns import LONGEST, PATIENCE, Turns
from samples import NOW

A, B, C = (PoolKey("builds", name) for name in "abc")
MINUTE = timedelta(minutes=1)


def test_as_many_begin_as_may_and_the_others_wait() -> None:
    turns = Turns(2)
    for pool in (A, B, C):
        turns = turns.asked(pool, now=NOW)
    assert turns.rolling.keys() == {A, B}
    assert turns.waiting.keys() == {C}
    assert turns.next(now=NOW) == ()
    turns = turns.done(A)
    assert turns.next(now=NOW) == (C,)
    assert turns.asked(C, now=NOW).rolling.keys() == {B, C}


def test_who_has_a_turn_keeps_it_however_often_it_asks() -> None:
    turns = Turns(1).asked(A, now=NOW)
    assert turns.asked(A, now=NOW + MINUTE) == turns


def test_first_is_woken_who_waits_longest() -> None:
    turns = Turns(1).asked(C, now=NOW)
    turns = turns.asked(B, now=NOW).asked(A, now=NOW + MINUTE).asked(B, now=NOW + 2 * MINUTE)
    assert turns.done(C).next(now=NOW) == (B,)


def test_a_rollout_of_a_user_is_never_asked_and_keeps_others_waiting() -> None:
    turns = Turns(1).asked(A, now=NOW).rolls(B, now=NOW)
    assert turns.rolling.keys() == {A, B}
    assert turns.done(A).asked(C, now=NOW).waiting.keys() == {C}


def test_a_pool_that_waits_and_is_changed_by_its_user_waits_no_more() -> None:
    turns = Turns(1).asked(A, now=NOW).asked(B, now=NOW).rolls(B, now=NOW)
    assert not turns.waiting


def test_a_rollout_that_is_stuck_makes_way() -> None:
    turns = Turns(1).asked(A, now=NOW).asked(B, now=NOW)
    assert turns.asked(B, now=NOW + LONGEST - MINUTE).waiting.keys() == {B}
    assert turns.asked(B, now=NOW + LONGEST).rolling.keys() == {A, B}


def test_nobody_waits_for_ever() -> None:
    turns = Turns(1).asked(A, now=NOW).asked(B, now=NOW)
    for hour in range(24):
        turns = turns.done(A).rolls(A, now=NOW + timedelta(hours=hour))
        turns = turns.asked(B, now=NOW + timedelta(hours=hour, minutes=1))
        assert B in turns.waiting
    assert B in turns.asked(B, now=NOW + PATIENCE).rolling


def test_without_a_limit_nobody_waits() -> None:
    turns = Turns(0)
    for number in range(50):
        turns = turns.asked(PoolKey("builds", f"{number}"), now=NOW)
    assert len(turns.rolling) == 50
    assert not turns.waiting


KEYS = st.sampled_from([PoolKey("builds", f"p{number}") for number in range(8)])
STEPS = st.lists(st.tuples(st.sampled_from(["asked", "rolls", "done"]), KEYS, st.integers(0, 40)))


@given(STEPS, st.integers(1, 4))
def test_by_our_doing_never_more_begin_than_may(
    steps: list[tuple[str, PoolKey, int]], limit: int
) -> None:
    turns, now = Turns(limit), NOW
    for what, pool, minutes in steps:
        now += timedelta(minutes=minutes)
        before = turns
        if what == "done":
            turns = turns.done(pool)
        else:
            turns = getattr(turns, what)(pool, now=now)
            assert (pool in turns.rolling) != (pool in turns.waiting)
        if what == "asked" and turns.rolling.keys() - before.rolling.keys():
            young = [since for since in turns.rolling.values() if now - since < LONGEST]
            waited = now - before.waiting.get(pool, now)
            assert len(young) <= limit or waited >= PATIENCE
        assert not turns.rolling.keys() & turns.waiting.keys()
