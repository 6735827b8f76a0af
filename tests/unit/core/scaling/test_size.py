from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest

from buildpool.core.api import PoolSpec, SizeReason
from buildpool.core.api.warmth import Warmth
from buildpool.core.scaling import Builder, Calm, LastDecision
from buildpool.core.scaling.size import Sizing, size_for
from samples import DAY, NOW
from unit.core.scaling.pools import (
    IDLE_AFTER,
    MINUTE,
    OUTDATED,
    SECOND,
    a_builder,
    a_spec,
    builders,
)


def sized(
    spec: PoolSpec,
    pool: list[Builder],
    *,
    size: int | None = None,
    calm: Calm | None = None,
    now: datetime = NOW,
    warmth: Warmth | None = None,
    **gateway: int,
) -> Sizing:
    memory = LastDecision(size, calm)
    return size_for(spec, pool, memory=memory, warmth=warmth, now=now, **gateway)


def running(*builds: int | None, size: int | None = None, **scaling: Any) -> Sizing:
    return sized(a_spec(**scaling), builders(*builds), size=size)


# --- up ------------------------------------------------------------------------------------------

# sentence: (slots, percentage, builds, builders that are needed)
NEEDS = {
    "no build needs no builder": (2, 80, 0, 0),
    "one build needs one": (2, 80, 1, 1),
    "exactly on target is enough": (5, 80, 4, 1),
    "one above the target is one more builder": (5, 80, 5, 2),
    "a target of 100 % fills every slot": (4, 100, 8, 2),
    "one slot and 80 % leave every fifth builder free": (1, 80, 4, 5),
    "a low target asks for many": (1, 1, 1, 100),
    "no rounding makes 29 % of 100 slots less than 29": (100, 29, 29, 1),
    "nor more": (100, 29, 30, 2),
}


@pytest.mark.parametrize(("slots", "target", "builds", "needed"), NEEDS.values(), ids=NEEDS.keys())
def test_how_many_builders_some_builds_need(slots, target, builds, needed):
    spec = a_spec(slots=slots, targetUtilization=target, min=0, max=100)
    assert sized(spec, [a_builder(builds=builds)], size=0).size == needed


def test_a_pool_grows_at_once_and_in_one_step():
    grown = running(2, 6, 5, size=2, max=20)
    assert (grown.size, grown.reason, grown.calm) == (9, SizeReason.FOLLOWS_LOAD, None)
    assert grown.message == (
        "13 builds run; with 9 builders of 2 slots, utilization stays at 80 % or less."
    )


def test_a_pool_never_exceeds_its_maximum_and_says_so():
    full = running(13, size=1)
    assert (full.size, full.reason) == (8, SizeReason.AT_MAXIMUM)
    assert full.message == "13 builds run; that needs 9 builders, but scaling.max is 8."


def test_a_maximum_that_is_just_enough_is_no_shortage():
    assert running(12, size=1).reason == SizeReason.FOLLOWS_LOAD


def test_a_pool_has_its_minimum_without_any_build():
    rest = running(0, size=1)
    assert (rest.size, rest.reason, rest.calm) == (1, SizeReason.AT_MINIMUM, None)
    assert rest.message == "0 builds run; the 1 builder of scaling.min will do."


def test_a_shortage_is_named_even_where_minimum_and_maximum_are_the_same():
    assert running(9, size=2, min=2, max=2).reason == SizeReason.AT_MAXIMUM


def test_a_pool_may_come_down_to_nothing_and_back():
    assert running(min=0).size == 0
    assert running(1, size=0, min=0).size == 1


def test_growth_ends_the_calm():
    pool = builders(2, 2, 2)
    calm = Calm(NOW - MINUTE, 1)
    assert sized(a_spec(), pool, size=3, calm=calm).calm is None


def test_a_pool_is_kept_warm_and_says_until_when():
    warmth = Warmth(3, NOW + MINUTE)
    warm = sized(a_spec(), builders(1), size=1, warmth=warmth)
    assert (warm.size, warm.reason, warm.calm) == (3, SizeReason.KEPT_WARM, None)
    assert warm.message == (
        f"1 build runs; 3 builders kept warm until {NOW + MINUTE:%Y-%m-%d %H:%M:%S} UTC."
    )
    assert sized(a_spec(min=0), builders(), size=0, warmth=warmth).size == 3, "one that sleeps"
    # What builds need, and what the spec says, comes first.
    assert sized(a_spec(), builders(9), size=1, warmth=warmth).reason == SizeReason.FOLLOWS_LOAD
    assert sized(a_spec(min=3), builders(1), size=3, warmth=warmth).reason == SizeReason.AT_MINIMUM
    assert sized(a_spec(max=2), builders(1), size=1, warmth=warmth).size == 2
    assert sized(a_spec(replicas=1), builders(1), warmth=warmth).size == 1


def test_warmth_that_ends_is_followed_by_the_usual_calm():
    after = sized(a_spec(), builders(0, 0, 0), size=3)
    assert (after.size, after.reason, after.calm) == (3, SizeReason.COOLING_DOWN, Calm(NOW, 1))
    # What was calm before does not count: it was wanted so.
    calm = Calm(NOW - IDLE_AFTER, 1)
    warm = sized(a_spec(), builders(0, 0, 0), size=3, calm=calm, warmth=Warmth(2, NOW + MINUTE))
    assert warm.size == 2, "builders beyond it are removed as ever"


# --- what counts ---------------------------------------------------------------------------------


def test_builds_on_retired_builders_need_no_room():
    pool = [a_builder(0, 1), a_builder(1, 8, retired=NOW)]
    rest = sized(a_spec(), pool, size=1)
    assert rest.size == 1
    assert rest.message == (
        "1 build runs, and 8 more on builders that drain; the 1 builder of scaling.min will do."
    )


def test_a_flaw_does_not_make_builds_count_less():
    flawed = [a_builder(0, 3, flaw=OUTDATED)]
    assert sized(a_spec(), flawed, size=1).size == 2


def test_the_targets_of_a_bake_need_the_one_slot_that_they_have():
    rest = sized(a_spec(), builders(10), size=1, shared=9)
    assert (rest.size, rest.reason) == (1, SizeReason.AT_MINIMUM)
    assert rest.message == "10 builds run in 1 slot; the 1 builder of scaling.min will do."
    assert sized(a_spec(), builders(10), size=1, shared=9, waiting=1).size == 2


def test_builds_that_share_never_count_as_none():
    """The gateway says it a moment later than the daemons, or somebody else wrote it."""
    assert sized(a_spec(min=0), builders(3), size=0, shared=2**31).size == 1
    assert sized(a_spec(min=0), builders(0), size=0, shared=5).size == 0


def test_a_pool_grows_by_fresh_builds_only_once_it_is_known_that_they_need_room():
    pool = [a_builder(builds=10, fresh=9)]
    early = sized(a_spec(), pool, size=1)
    assert (early.size, early.is_early) == (1, True)
    assert early.message == (
        "10 builds run; 9 of them began a moment ago, and may need no slot of their own."
    )
    assert sized(a_spec(), [a_builder(builds=10, fresh=4)], size=1).size == 4
    later = sized(a_spec(), [a_builder(builds=10)], size=1)
    assert (later.size, later.is_early) == (7, False)


def test_a_pool_grows_at_once_for_builds_that_wait_beside_fresh_ones():
    assert sized(a_spec(), [a_builder(builds=2, fresh=2)], size=1, waiting=4).size == 3


def test_fresh_builds_hold_the_size_that_a_pool_has():
    calm = Calm(NOW - MINUTE, 1)
    assert sized(a_spec(), [a_builder(builds=10, fresh=10)], size=7, calm=calm).reason == (
        SizeReason.FOLLOWS_LOAD
    )
    assert sized(a_spec(), [a_builder(builds=10, fresh=10)], size=1, calm=calm).calm == calm


def test_a_silent_builder_grows_no_pool():
    rest = running(None, None, 1, size=1)
    assert rest.size == 1
    assert rest.message.startswith("1 build runs (2 builders did not say); ")


def test_a_silent_builder_keeps_its_place_in_a_pool_that_shrinks():
    calm = Calm(NOW - IDLE_AFTER, 1)
    pool = builders(1, None, None, 0, 0)
    assert sized(a_spec(), pool, size=5, calm=calm).size == 3
    # As after a restart of the operator, when no daemon has been asked yet.
    assert sized(a_spec(), builders(*[None] * 5), size=5, calm=calm).size == 5


# --- down ----------------------------------------------------------------------------------------


def test_a_pool_that_needs_less_keeps_its_size_for_a_while():
    cooling = running(1, 1, 0, 0, size=4)
    assert (cooling.size, cooling.reason) == (4, SizeReason.COOLING_DOWN)
    assert cooling.calm == Calm(NOW, 2)
    assert cooling.message == (
        "2 builds run; 2 builders would do, but the pool keeps 4 until 12:10:00 UTC,"
        " in case more builds come."
    )


def test_the_message_stays_while_time_passes():
    pool = builders(1, 1, 0, 0)
    first = sized(a_spec(), pool, size=4)
    later = sized(a_spec(), pool, size=4, calm=first.calm, now=NOW + IDLE_AFTER - SECOND)
    assert later == first


def test_a_moment_on_another_day_has_its_date():
    cooling = sized(a_spec(idle_after="12h"), builders(0, 0), size=2)
    assert "until 2026-01-02 00:00:00 UTC" in cooling.message


def test_it_shrinks_to_the_most_that_was_needed_meanwhile():
    calm = Calm(NOW - IDLE_AFTER, 3)
    shrunk = sized(a_spec(), builders(1, 1, 0, 0, 0), size=5, calm=calm)
    assert (shrunk.size, shrunk.reason) == (3, SizeReason.COOLING_DOWN)
    assert shrunk.calm == Calm(NOW, 2)
    rest = sized(a_spec(), builders(1, 1, 1, 1, 0), size=5, calm=calm)
    assert (rest.size, rest.reason, rest.calm) == (3, SizeReason.FOLLOWS_LOAD, None)


def test_a_calm_remembers_its_peak():
    calm = Calm(NOW - MINUTE, 1)
    after = sized(a_spec(), builders(2, 2, 0, 0), size=4, calm=calm)
    assert after.calm == Calm(NOW - MINUTE, 3)
    assert sized(a_spec(), builders(0, 0, 0, 0), size=4, calm=after.calm).calm == after.calm


def test_a_calm_ends_to_the_second():
    pool = builders(0, 0)
    calm = Calm(NOW - IDLE_AFTER, 0)
    assert sized(a_spec(), pool, size=2, calm=calm, now=NOW - SECOND).size == 2
    assert sized(a_spec(), pool, size=2, calm=calm).size == 1


def test_a_clock_that_was_set_back_prolongs_no_calm():
    pool = builders(0, 0)
    calm = sized(a_spec(), pool, size=2, calm=Calm(NOW + DAY, 1)).calm
    assert calm == Calm(NOW, 1)
    assert sized(a_spec(), pool, size=2, calm=calm, now=NOW + IDLE_AFTER).size == 1


def test_a_new_maximum_holds_at_once():
    calm = Calm(NOW - IDLE_AFTER, 7)
    lower = sized(a_spec(max=3), builders(*[0] * 8), size=8, calm=calm)
    assert lower.size == 3


def test_a_new_minimum_holds_at_once():
    raised = running(0, size=1, min=3)
    assert (raised.size, raised.reason) == (3, SizeReason.AT_MINIMUM)


# --- without a past ------------------------------------------------------------------------------


def test_a_new_pool_has_as_many_as_it_needs():
    assert running().size == 1
    assert running(min=3).size == 3


def test_a_lost_status_shrinks_no_pool():
    lost = running(0, 0, 0, 0)
    assert (lost.size, lost.reason, lost.calm) == (4, SizeReason.COOLING_DOWN, Calm(NOW, 1))
    retired = replace(a_builder(4), retired=NOW)
    assert sized(a_spec(), [*builders(0, 0), retired]).size == 2
    assert running(*[0] * 9).size == 8


# --- set by hand ---------------------------------------------------------------------------------


@pytest.mark.parametrize("replicas", [0, 1, 12])
def test_replicas_override_load_and_limits(replicas):
    calm = Calm(NOW - timedelta(hours=1), 5)
    fixed = sized(a_spec(replicas=replicas), builders(9, 9), size=4, calm=calm)
    assert (fixed.size, fixed.reason, fixed.calm) == (replicas, SizeReason.REPLICAS_SET, None)


def test_a_pool_that_is_set_free_shrinks_after_the_usual_time():
    assert running(0, 0, 0, size=3).reason == SizeReason.COOLING_DOWN
    assert sized(a_spec(replicas=1), []).message == "spec.replicas asks for 1 builder."
