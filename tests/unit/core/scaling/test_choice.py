from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from buildpool.core.api import RetireReason
from buildpool.core.api.warmth import Warmth
from buildpool.core.scaling import (
    NOTICE,
    SETTLE,
    Builder,
    Calm,
    Decision,
    LastDecision,
    Retirement,
)
from buildpool.core.scaling.choice import LOOK_AGAIN
from buildpool.core.words import Finding
from samples import DAY, NOW
from unit.core.scaling.pools import (
    IDLE_AFTER,
    MAX_BUILD,
    MINUTE,
    OUTDATED,
    SECOND,
    a_builder,
    a_spec,
    builders,
    decided,
)


def sized(size: int, *pool: Builder, taken: tuple[int, ...] = (), **spec: Any) -> Decision:
    """The decision about a pool that shall have so many builders."""
    return decided(a_spec(replicas=size, **spec), pool, taken=taken)


def retired(decision: Decision) -> list[int]:
    return [retirement.index for retirement in decision.retire]


def gone(index: int, builds: int | None = 0, *, since: timedelta, **overrides: Any) -> Builder:
    """A builder that retired so long ago, and is outdated, so that it will not serve again.

    If it is overdue, that was reported at once.
    """
    retired = NOW - since
    overdue = retired + MAX_BUILD if since >= MAX_BUILD else None
    return a_builder(
        index, builds, **{"retired": retired, "flaw": OUTDATED, "overdue": overdue, **overrides}
    )


# --- fewer ---------------------------------------------------------------------------------------


def test_the_newest_idle_builder_is_the_first_to_go():
    decision = sized(1, *builders(0, 0, 0))
    assert decision.retire == tuple(
        Retirement(index, Finding(RetireReason.SURPLUS, "The pool needs no more than 1 builder."))
        for index in (2, 1)
    )


def test_age_goes_by_time_and_only_then_by_number():
    older = [a_builder(index, created=NOW) for index in (0, 1)] + [a_builder(2)]
    assert retired(sized(1, *older)) == [1, 0]


def test_builders_that_take_no_builds_yet_go_before_those_that_do():
    pool = [a_builder(0, is_ready=False), a_builder(1), a_builder(2)]
    assert retired(sized(2, *pool)) == [0]


def test_a_busy_or_silent_builder_is_never_too_many():
    assert retired(sized(0, *builders(1, None, 0, 2))) == [2]


def test_as_many_as_wanted_keep_taking_builds():
    # Those that take none may have builds, so that they cannot be chosen.
    stuck = builders(None, None, is_ready=False)
    assert retired(sized(2, *stuck, a_builder(2), a_builder(3))) == []
    assert retired(sized(2, *stuck, a_builder(2), a_builder(3), a_builder(4))) == [4]


# --- replaced ------------------------------------------------------------------------------------


def test_a_flaw_is_the_reason_that_is_told():
    flaw = Finding(RetireReason.TOO_OLD, "It is 31 days old.")
    decision = sized(1, a_builder(0, flaw=flaw), a_builder(1))
    assert decision.retire == (Retirement(0, flaw),)


def test_the_new_builder_comes_before_the_old_one_goes():
    old = builders(0, 0, flaw=OUTDATED)
    first = sized(2, *old)
    assert (first.add, retired(first)) == ((2,), [])
    starting = sized(2, *old, a_builder(2, is_ready=False))
    assert (starting.add, retired(starting)) == ((), [])
    then = sized(2, *old, a_builder(2))
    assert (then.add, retired(then)) == ((3,), [1])


def test_without_a_surge_the_old_one_goes_first():
    decision = sized(2, *builders(0, 0, flaw=OUTDATED), surge=0, unavailable=1)
    assert (decision.add, retired(decision)) == ((2,), [1])


def test_an_outdated_builder_that_takes_no_builds_goes_at_once():
    old = [a_builder(0, flaw=OUTDATED), a_builder(1, flaw=OUTDATED, is_ready=False)]
    assert retired(sized(2, *old)) == [1]


# sentence: (builds of the outdated builders, those that retire while one may be missing)
ORDER = {
    "an idle one goes first": ((1, 0, 2), [1]),
    "then the one with the fewest builds": ((3, 1, 2), [1]),
    "a silent one goes last": ((None, 9, None), [1]),
    "among equals, the newest": ((1, 1, 1), [2]),
}


@pytest.mark.parametrize(("builds", "first"), ORDER.values(), ids=ORDER.keys())
def test_which_outdated_builder_retires_first(builds, first):
    assert retired(sized(3, *builders(*builds, flaw=OUTDATED), unavailable=1)) == first


def test_several_go_at_once_where_enough_others_take_builds():
    pool = [*builders(0, 1, 2, flaw=OUTDATED), a_builder(3), a_builder(4)]
    assert retired(sized(3, *pool)) == [0, 1]


def test_what_is_too_many_is_counted_before_what_is_replaced():
    pool = [*builders(2, 2, flaw=OUTDATED), a_builder(2), a_builder(3)]
    assert retired(sized(1, *pool)) == [3, 1, 0]


def test_builders_that_hang_do_not_hold_up_a_rollout():
    hung = builders(None, None, flaw=OUTDATED, is_ready=False)
    decision = sized(2, *hung, a_builder(2))
    assert (retired(decision), decision.add) == ([1], (3,))
    # The other one may come back, and then it counts.
    assert retired(sized(2, hung[0], a_builder(2), a_builder(3, is_ready=False))) == []


def test_a_rollout_to_nothing_needs_no_others():
    assert retired(sized(0, *builders(1, None, flaw=OUTDATED))) == [0, 1]


# --- more ----------------------------------------------------------------------------------------


def test_new_builders_get_the_lowest_free_numbers():
    pool = [a_builder(0), a_builder(3), gone(1, 1, since=MINUTE)]
    assert sized(5, *pool, taken=(4,)).add == (2, 5, 6)


def test_the_number_of_a_builder_that_goes_now_is_not_free_yet():
    decision = sized(1, gone(0, since=MINUTE))
    assert (decision.remove, decision.add) == ((0,), (1,))


def test_a_retired_builder_serves_again_before_a_new_one_comes():
    pool = [a_builder(0, 2), gone(1, 1, since=MINUTE, flaw=None)]
    decision = sized(3, *pool)
    assert (decision.restore, decision.add, decision.remove) == ((1,), (2,), ())


def test_a_builder_that_serves_again_is_not_removed_though_it_is_idle():
    decision = sized(1, gone(0, since=MINUTE, flaw=None))
    assert (decision.restore, decision.remove, decision.recheck) == ((0,), (), None)


def test_the_busiest_retired_builder_serves_again_first_and_then_the_oldest():
    pool = [gone(i, builds, since=MINUTE, flaw=None) for i, builds in enumerate((None, 0, 3, 3))]
    assert sized(2, *pool).restore == (2, 3)
    assert sized(3, *pool).restore == (2, 3, 0)


def test_a_retired_builder_with_a_flaw_stays_retired():
    assert sized(1, gone(0, 1, since=MINUTE)).restore == ()


def test_an_overdue_builder_stays_retired():
    assert sized(1, gone(0, 1, since=MAX_BUILD, flaw=None)).restore == ()
    assert sized(1, gone(0, 1, since=MAX_BUILD - SECOND, flaw=None)).restore == (0,)


def test_a_pool_with_its_surge_taken_gets_no_more():
    old = builders(1, 1, 1, flaw=OUTDATED)
    assert sized(3, *old, surge=2).add == (3, 4)
    assert sized(3, *old, a_builder(3, is_ready=False), surge=1).add == ()


# --- gone ----------------------------------------------------------------------------------------

# sentence: (builder, whether it is removed)
REMOVED = {
    "idle since every proxy forgot it": (gone(0, since=SETTLE), True),
    "idle, but a proxy may still know it": (gone(0, since=SETTLE - SECOND), False),
    "idle when it was asked too early": (
        gone(0, since=MINUTE, as_of=NOW - MINUTE + SETTLE - SECOND),
        False,
    ),
    "idle, and nobody knows when": (gone(0, since=MINUTE, as_of=None), False),
    "busy": (gone(0, 1, since=MAX_BUILD), False),
    "silent": (gone(0, None, since=MAX_BUILD), False),
    "overdue, and not reported for long enough": (
        gone(0, 1, since=MAX_BUILD + NOTICE - SECOND),
        False,
    ),
    "overdue, and reported for long enough": (gone(0, 1, since=MAX_BUILD + NOTICE), True),
    "overdue for long, and reported late": (
        gone(0, 1, since=DAY, overdue=NOW - NOTICE + SECOND),
        False,
    ),
    "overdue for long, and never reported": (gone(0, 1, since=DAY, overdue=None), False),
    "silent for as long": (gone(0, None, since=MAX_BUILD + NOTICE, as_of=None), True),
    "idle, but it serves": (a_builder(0), False),
    "without a flaw, but no longer needed": (gone(0, since=MINUTE, flaw=None), True),
}


@pytest.mark.parametrize(("builder", "goes"), REMOVED.values(), ids=REMOVED.keys())
def test_when_a_builder_is_removed(builder, goes):
    assert sized(0, builder).remove == ((0,) if goes else ())


# --- time ----------------------------------------------------------------------------------------

# sentence: (builder, when to decide again)
RECHECK = {
    "it retired just now": (gone(0, 1, since=SECOND), SETTLE - SECOND),
    "it was idle when it was asked too early": (
        gone(0, since=MINUTE, as_of=NOW - MINUTE),
        LOOK_AGAIN,
    ),
    "it does not say what it runs": (gone(0, None, since=MINUTE), LOOK_AGAIN),
    "it is busy: its daemon tells when it is not": (gone(0, 1, since=MINUTE), MAX_BUILD - MINUTE),
    "it is overdue": (gone(0, 1, since=MAX_BUILD), NOTICE),
    "it is removed now": (gone(0, since=MINUTE), None),
    "it serves": (a_builder(0, 1), None),
    "it retires now": (a_builder(0), SETTLE),
}


@pytest.mark.parametrize(("builder", "expected"), RECHECK.values(), ids=RECHECK.keys())
def test_when_time_alone_changes_something(builder, expected):
    assert sized(0, builder).recheck == expected


def test_the_end_of_a_calm_is_waited_for():
    memory = LastDecision(2, Calm(NOW - MINUTE, 1))
    assert decided(a_spec(), builders(1, 0), memory=memory).recheck == IDLE_AFTER - MINUTE


def test_the_end_of_warmth_is_waited_for():
    memory, warmth = LastDecision(2), Warmth(2, NOW + MINUTE)
    assert decided(a_spec(), builders(1, 0), memory=memory, warmth=warmth).recheck == MINUTE


def test_a_decision_names_size_and_calm():
    decision = decided(a_spec(), builders(1, 0), memory=LastDecision(2))
    assert (decision.size, decision.reason, decision.calm) == (2, "CoolingDown", Calm(NOW, 1))
    assert decision.message


def test_the_order_of_builders_does_not_matter():
    pool = [
        *builders(0, 0, flaw=OUTDATED, is_ready=False),
        gone(2, since=MINUTE),
        gone(3, since=MINUTE),
    ]
    decision = sized(0, *pool)
    assert (retired(decision), decision.remove) == ([1, 0], (2, 3))
    assert sized(0, *pool[::-1]) == decision


def test_nothing_is_done_about_a_pool_as_it_should_be():
    decision = sized(2, *builders(1, None))
    assert decision == replace(decision, add=(), restore=(), retire=(), remove=(), recheck=None)
