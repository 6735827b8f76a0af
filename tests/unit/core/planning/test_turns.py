"""Whose turn it is to replace builders by the operator's doing."""

from __future__ import annotations

from datetime import datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from buildpool.core.api import PoolStatus
from buildpool.core.naming import PoolKey
from buildpool.core.planning.turns import LONGEST, PATIENCE, Turns, waiting_since
from samples import NOW

A, B, C = (PoolKey("builds", name) for name in "abc")
MINUTE = timedelta(minutes=1)


def ask(turns: Turns, pool: PoolKey, now: datetime = NOW) -> Turns:
    """A pool that is outdated by our doing, and was not when it was looked at before."""
    return turns.asked(pool, since=turns.waiting.get(pool, now), now=now)


def says(reason: str, since: datetime = NOW) -> PoolStatus:
    """What a pool's status says of its builders."""
    said = {"type": "UpToDate", "status": "False", "reason": reason, "lastTransitionTime": since}
    return PoolStatus.read({"conditions": [said]})


def test_as_many_begin_as_may_and_the_others_wait() -> None:
    turns = Turns(2)
    for pool in (A, B, C):
        turns = ask(turns, pool)
    assert turns.ours.keys() == {A, B}
    assert turns.waiting.keys() == {C}
    assert turns.done(A, now=NOW).ours.keys() == {B, C}


def test_a_pool_that_has_a_turn_keeps_it_however_often_it_asks() -> None:
    turns = ask(Turns(1), A)
    assert ask(turns, A, NOW + MINUTE) == turns


def test_the_pool_that_has_waited_longest_is_next_and_not_the_one_that_asks_first() -> None:
    turns = ask(ask(Turns(1), C), B)
    turns = ask(turns, A, NOW + MINUTE).done(C, now=NOW + 2 * MINUTE)
    turns = ask(turns, A, NOW + 3 * MINUTE)
    assert turns.ours.keys() == {B}
    assert turns.waiting.keys() == {A}


def test_a_rollout_of_a_user_is_never_asked_and_keeps_others_waiting() -> None:
    turns = ask(Turns(1), A).rolls(B, now=NOW)
    assert (turns.ours.keys(), turns.others.keys()) == ({A}, {B})
    assert ask(turns.done(A, now=NOW), C).waiting.keys() == {C}


def test_a_pool_that_waits_and_is_changed_by_its_user_waits_no_more() -> None:
    assert not ask(ask(Turns(1), A), B).rolls(B, now=NOW).waiting


def test_a_rollout_that_is_stuck_makes_way() -> None:
    turns = ask(ask(Turns(1), A), B)
    assert ask(turns, B, NOW + LONGEST - MINUTE).waiting.keys() == {B}
    assert ask(turns, B, NOW + LONGEST).ours.keys() == {A, B}


def test_a_pool_that_does_not_take_its_turn_makes_way() -> None:
    turns = ask(ask(ask(Turns(1), A), B), C).done(A, now=NOW)
    assert turns.ours.keys() == {B}  # which nobody looks at, because its passes fail
    assert ask(turns, C, NOW + LONGEST).ours.keys() == {B, C}


def test_rollouts_of_others_keep_nobody_waiting_for_ever() -> None:
    turns = ask(Turns(1).rolls(A, now=NOW), B)
    for hour in range(24):
        now, (last, following) = NOW + timedelta(hours=hour), (A, C) if hour % 2 else (C, A)
        turns = ask(turns.rolls(following, now=now).done(last, now=now), B, now + MINUTE)
        assert B in turns.waiting
    assert B in ask(turns, B, NOW + PATIENCE).ours


def test_after_a_day_of_waiting_no_more_begin_at_once_than_before() -> None:
    turns = Turns(2)
    for number in range(50):
        turns = ask(turns, PoolKey("builds", f"{number}"))
    assert len(turns.done(A, now=NOW + PATIENCE).ours) == 4, "two of them are stuck"


def test_without_a_limit_nobody_waits() -> None:
    turns = Turns(0)
    for number in range(50):
        turns = ask(turns, PoolKey("builds", f"{number}"))
    assert len(turns.ours) == 50
    assert not turns.waiting


def test_an_operator_that_begins_goes_on_where_the_one_before_has_ended() -> None:
    found = {A: says("RollingOut"), B: says("WaitingForTurn", NOW), C: says("Settled")}
    other = PoolKey("builds", "d")
    found[other] = says("WaitingForTurn", NOW - timedelta(hours=3))
    turns = Turns(1).resumed(found.items(), now=NOW + MINUTE)
    assert (turns.ours.keys(), turns.waiting.keys()) == ({A}, {B, other})
    # Whoever is looked at first, the one that has waited longest is next.
    turns = ask(turns, B, NOW + 2 * MINUTE).done(A, now=NOW + 3 * MINUTE)
    assert turns.ours.keys() == {other}


def test_an_operator_that_begins_gives_free_turns_to_those_that_wait_longest() -> None:
    found = {A: says("WaitingForTurn", NOW), B: says("WaitingForTurn", NOW - MINUTE)}
    assert Turns(1).resumed(found.items(), now=NOW).ours.keys() == {B}


def test_a_rollout_of_an_operator_without_the_condition_counts() -> None:
    said = {"type": "Progressing", "status": "True", "reason": "RollingOut"}
    found = {A: PoolStatus.read({"conditions": [said]})}
    assert Turns(1).resumed(found.items(), now=NOW).ours.keys() == {A}


def test_a_pool_that_says_it_has_waited_since_tomorrow_waits_since_now() -> None:
    turns = Turns(1).rolls(A, now=NOW).asked(B, since=NOW + timedelta(days=9), now=NOW)
    assert turns.waiting == {B: NOW}


STORED = st.text() | st.sampled_from(
    ["2053-01-01T00:00:00Z", "2026-01-01T00:00:00", "0001-01-01T00:00:00", "9999-12-31T23:59:59Z"]
)


@given(st.dictionaries(st.sampled_from([A, B, C]), STORED))
def test_no_moment_that_is_stored_ends_a_term_or_lies_in_the_future(
    stored: dict[PoolKey, str],
) -> None:
    said = {"type": "UpToDate", "status": "False", "reason": "WaitingForTurn"}
    told = {
        pool: PoolStatus.read({"conditions": [said | {"lastTransitionTime": moment}]})
        for pool, moment in stored.items()
    }
    turns = Turns(1, others={PoolKey("others", "rolls"): NOW}).resumed(told.items(), now=NOW)
    for pool, status in told.items():
        since = waiting_since(status) or NOW
        turns = turns.asked(pool, since=since, now=NOW)
    assert all(since <= NOW for since in turns.waiting.values())


KEYS = st.sampled_from([PoolKey("builds", f"p{number}") for number in range(6)])
WHAT = st.sampled_from(["asked"] * 5 + ["rolls", "done", "done", "restart"])
STEPS = st.lists(st.tuples(WHAT, KEYS, st.integers(0, 40)), min_size=10)


@given(STEPS, st.integers(1, 2))
def test_by_our_doing_never_more_begin_than_may_and_always_in_order(
    steps: list[tuple[str, PoolKey, int]], limit: int
) -> None:
    turns, now = Turns(limit), NOW
    for what, pool, minutes in steps:
        now += timedelta(minutes=minutes)
        before = turns
        if what == "asked":
            turns = ask(turns, pool, now)
        elif what == "restart":
            status = {key: says("RollingOut") for key in (*turns.ours, *turns.others)}
            status |= {key: says("WaitingForTurn", since) for key, since in turns.waiting.items()}
            turns = Turns(limit).resumed(status.items(), now=now)
        else:
            turns = getattr(turns, what)(pool, now=now)
        assert not turns.waiting.keys() & {*turns.ours, *turns.others}
        if what == "restart":
            continue
        granted = turns.ours.keys() - before.ours.keys()
        if granted:
            assert sum(now - since < LONGEST for since in turns.ours.values()) <= limit
        since = {pool: now, **before.waiting}
        latest = max((since[each] for each in granted), default=now)
        assert all(latest <= moment for moment in turns.waiting.values()) or not granted


@given(STEPS, st.integers(1, 2))
def test_whatever_went_before_each_pool_that_waits_gets_its_turn(
    steps: list[tuple[str, PoolKey, int]], limit: int
) -> None:
    turns, now = Turns(limit), NOW
    for what, pool, minutes in steps:
        now += timedelta(minutes=minutes)
        if what != "restart":
            turns = (
                ask(turns, pool, now) if what == "asked" else getattr(turns, what)(pool, now=now)
            )
    # Nobody finishes any more, and some pool of a user is always being replaced.
    waited = sorted(turns.waiting.items(), key=lambda item: (item[1], item[0]))
    begun: list[PoolKey] = []
    for hour in range(24 + 8 + 1):
        now += LONGEST
        busy = [PoolKey("others", f"{hour}-{number}") for number in range(limit)]
        for each in busy:
            turns = turns.rolls(each, now=now)
        begun += [pool for pool, _ in waited if pool in turns.ours and pool not in begun]
        for each in busy:
            turns = turns.done(each, now=now) if hour % 2 else turns
    assert not turns.waiting
    assert begun == [pool for pool, _ in waited]
