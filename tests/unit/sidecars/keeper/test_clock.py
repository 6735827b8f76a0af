"""A clock that leaps empties no cache."""

from __future__ import annotations

from datetime import timedelta

from hypothesis import given
from hypothesis import strategies as st

from buildpool.sidecars.keeper.clock import AWAY, DOUBT, LEAP, CautiousClock
from unit.sidecars.kept import RETENTION, Kept
from unit.sidecars.stored import DAY, HOUR, NOW

MINUTE = timedelta(minutes=1)
ZERO = timedelta(0)
SPANS = st.timedeltas(min_value=ZERO, max_value=timedelta(days=10_000))


async def leap(kept: Kept, span: timedelta) -> None:
    kept.now += span
    kept.leapt += span


async def test_a_clock_that_leaps_while_the_keeper_runs_empties_nothing(kept: Kept) -> None:
    kept.cache("caches/app:main")
    kept.blob(b"of an export", "caches/app", age=HOUR)
    await kept.upkeep.round()
    await leap(kept, 10 * RETENTION)
    for _ in range(3):
        kept.now += MINUTE
        await kept.upkeep.round()
    assert kept.tags() == {"caches/app:main"}
    assert kept.has(b"of an export")
    await leap(kept, -10 * RETENTION)
    kept.now += DOUBT
    await kept.upkeep.round()
    assert kept.tags() == {"caches/app:main"}


async def test_a_clock_that_is_ahead_when_the_keeper_starts_empties_nothing(kept: Kept) -> None:
    kept.cache("caches/app:main")
    kept.now += 10 * RETENTION
    await kept.upkeep.round()
    assert kept.tags() == {"caches/app:main"}


async def test_a_build_that_comes_first_does_not_make_a_clock_that_is_ahead_believed(
    kept: Kept,
) -> None:
    kept.cache("caches/app:main")
    kept.cache("caches/app:other", [b"other"])
    await kept.upkeep.round()
    kept.now += 10 * RETENTION
    kept.upkeep = kept.restarted()
    assert await kept.check("other")
    await kept.upkeep.round()
    kept.upkeep = kept.restarted()
    await kept.upkeep.round()
    assert kept.tags() == {"caches/app:main", "caches/app:other"}


async def test_room_is_made_meanwhile_but_for_what_is_in_use(kept: Kept) -> None:
    for number in range(4):
        kept.cache(f"caches/app:{number}", [str(number).encode() * 10_000], age=(9 - number) * DAY)
    await kept.upkeep.round()
    kept.capacity = kept.size()
    kept.now += 10 * RETENTION
    kept.upkeep = kept.restarted()
    await kept.check("0")
    await kept.upkeep.round()
    assert kept.tags() == {"caches/app:0", "caches/app:3"}


async def test_what_expired_while_the_keeper_was_away_goes_after_an_hour(kept: Kept) -> None:
    kept.cache("caches/app:main")
    await kept.upkeep.round()
    kept.now += 2 * RETENTION
    kept.upkeep = kept.restarted()
    await kept.upkeep.round()
    kept.now += DOUBT
    await kept.upkeep.round()
    assert kept.tags() == set()


def test_a_restart_within_a_day_is_no_leap() -> None:
    assert CautiousClock().believed(NOW, ZERO, NOW - AWAY) == NOW
    assert CautiousClock().believed(NOW, ZERO, None) == NOW


def test_a_clock_that_is_put_back_is_believed() -> None:
    clock = CautiousClock()
    clock.believed(NOW, ZERO, NOW)
    assert clock.believed(NOW - DAY, MINUTE, NOW) == NOW - DAY
    assert clock.believed(NOW, 2 * MINUTE, NOW) < NOW, "and then it leaps"


@given(gap=SPANS, steps=st.lists(st.tuples(SPANS, st.timedeltas(ZERO, HOUR)), max_size=20))
def test_the_time_that_is_believed_is_never_ahead_of_the_evidence_for_an_hour(
    gap: timedelta, steps: list[tuple[timedelta, timedelta]]
) -> None:
    clock, passed = CautiousClock(), ZERO
    evidence = NOW - gap
    believed = clock.believed(NOW, passed, evidence)
    assert believed <= max(evidence + AWAY, evidence)
    now = NOW
    for leapt, took in steps:
        now, passed = now + took + leapt, passed + took
        last, believed = believed, clock.believed(now, passed, evidence)
        assert believed <= now
        if passed < DOUBT:
            assert believed <= last + took + LEAP
