"""What holds of every decision, and of a pool that many decisions have been carried out on."""

from __future__ import annotations

import random
from dataclasses import replace
from datetime import timedelta
from itertools import pairwise

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from buildpool.core.api.warmth import Warmth
from buildpool.core.scaling import NOTICE, SETTLE, Builder, Calm, LastDecision
from samples import NOW
from unit.core.scaling.pools import (
    IDLE_AFTER,
    MAX_BUILD,
    OUTDATED,
    SECOND,
    World,
    a_builder,
    a_spec,
    applied,
    current,
    decided,
    indexes,
    is_empty,
    pools,
    ready,
    serving,
    specs,
)

calms = st.none() | st.builds(
    lambda age, peak: Calm(NOW - age, peak),
    st.sampled_from([-SECOND, timedelta(), SECOND, IDLE_AFTER - SECOND, IDLE_AFTER]),
    st.integers(0, 9),
)
memories = st.builds(LastDecision, st.none() | st.integers(0, 9), calms)
numbers = st.integers(0, 10_000)
SURPLUS = "Surplus"


# --- every decision ------------------------------------------------------------------------------


@given(specs(), pools(), memories)
def test_a_size_keeps_its_limits(spec, pool, memory):
    size = decided(spec, pool, memory=memory).size
    if spec.replicas is None:
        assert spec.scaling.min <= size <= spec.scaling.max
    else:
        assert size == spec.replicas


@given(specs(), pools(), memories, st.builds(Warmth, numbers, st.just(NOW + SECOND)))
def test_warmth_keeps_the_limits_and_never_makes_a_pool_smaller(spec, pool, memory, warmth):
    size = decided(spec, pool, memory=memory, warmth=warmth).size
    assert size >= decided(spec, pool, memory=LastDecision(0)).size
    if spec.replicas is None:
        assert min(warmth.builders, spec.scaling.max) <= size <= spec.scaling.max
    else:
        assert size == spec.replicas


@given(specs(), pools(), memories, st.none() | st.builds(Warmth, numbers, st.just(NOW + SECOND)))
def test_only_idle_builders_without_a_flaw_are_surplus(spec, pool, memory, warmth):
    decision = decided(spec, pool, memory=memory, warmth=warmth)
    named = {builder.index: builder for builder in pool}
    for retirement in decision.retire:
        builder = named[retirement.index]
        assert builder.retired is None
        if retirement.why.reason == SURPLUS:
            assert builder.builds == 0
            assert builder.flaw is None
        else:
            assert builder.flaw == OUTDATED


@given(specs(), pools(), memories)
def test_only_a_retired_builder_is_removed_and_only_if_idle_or_long_overdue(spec, pool, memory):
    decision = decided(spec, pool, memory=memory)
    named = {builder.index: builder for builder in pool}
    for index in decision.remove:
        builder = named[index]
        assert builder.retired is not None
        overdue = builder.retired + MAX_BUILD + NOTICE <= NOW
        idle = builder.builds == 0 and builder.as_of is not None
        assert overdue or (idle and builder.as_of >= builder.retired + SETTLE)


@given(specs(), pools(), memories, st.frozensets(st.integers(0, 12), max_size=4))
def test_every_builder_gets_one_fate_and_every_new_one_a_free_number(spec, pool, memory, taken):
    decision = decided(spec, pool, memory=memory, taken=taken)
    retiring = {retirement.index for retirement in decision.retire}
    named = [*retiring, *decision.restore, *decision.remove, *decision.add]
    assert len(named) == len(set(named))
    assert not (indexes(pool) | taken).intersection(decision.add)
    for index in decision.add:
        assert set(range(index)) <= indexes(pool) | taken | set(decision.add)


@given(specs(), pools(), memories)
def test_nothing_comes_while_a_surplus_goes(spec, pool, memory):
    decision = decided(spec, pool, memory=memory)
    if any(retirement.why.reason == SURPLUS for retirement in decision.retire):
        assert not decision.add
        assert not decision.restore


@given(specs(), pools(), memories, numbers)
def test_more_builds_never_make_a_pool_smaller(spec, pool, memory, number):
    known = [index for index, builder in enumerate(pool) if builder.builds is not None]
    assume(known)
    at = known[number % len(known)]
    more = [*pool]
    more[at] = replace(pool[at], builds=(pool[at].builds or 0) + 1)
    less_size = decided(spec, pool, memory=memory).size
    assert decided(spec, more, memory=memory).size >= less_size


@given(specs(), pools(), memories)
def test_no_more_builders_serve_than_the_surge_allows(spec, pool, memory):
    decision = decided(spec, pool, memory=memory)
    after = serving(applied(pool, decision))
    allowed = decision.size + spec.builders.rollout.max_surge
    assert len(after) <= max(allowed, len(serving(pool)))
    assert len(current(after)) <= max(decision.size, len(current(pool)))


@given(specs(), pools(), memories)
def test_a_replacement_leaves_enough_builders_that_take_builds(spec, pool, memory):
    decision = decided(spec, pool, memory=memory)
    surplus = [each for each in decision.retire if each.why.reason == SURPLUS]
    least = decision.size - spec.builders.rollout.max_unavailable
    after = ready(applied(pool, replace(decision, restore=(), add=())))
    before = ready(applied(pool, replace(decision, restore=(), add=(), retire=tuple(surplus))))
    assert after >= min(least, before)


@given(specs(), pools(), memories)
def test_a_surplus_leaves_as_many_as_wanted(spec, pool, memory):
    decision = decided(spec, pool, memory=memory)
    surplus = tuple(each for each in decision.retire if each.why.reason == SURPLUS)
    before, after = current(pool), current(applied(pool, replace(decision, retire=surplus)))
    assert len(after) >= min(decision.size, len(before))
    assert ready(after) >= min(decision.size, ready(before))


@given(specs(), pools(), memories, st.randoms(use_true_random=False))
def test_the_order_of_builders_does_not_matter(spec, pool, memory, dice: random.Random):
    shuffled = [*pool]
    dice.shuffle(shuffled)
    assert decided(spec, shuffled, memory=memory) == decided(spec, pool, memory=memory)


@given(specs(), pools(), memories)
def test_time_alone_changes_nothing_before_it_is_said_to(spec, pool, memory):
    decision = decided(spec, pool, memory=memory)
    after = applied(pool, decision)
    first = decided(spec, after, memory=LastDecision(decision.size, decision.calm))
    assume(is_empty(first))
    remembered = LastDecision(first.size, first.calm)
    recheck = first.recheck or timedelta(days=30)
    assert recheck > timedelta()
    later = decided(spec, after, memory=remembered, now=NOW + recheck - timedelta(microseconds=1))
    assert is_empty(later)
    assert (later.size, later.message) == (first.size, first.message)


# --- a pool in the course of time ----------------------------------------------------------------

EVENTS = ("pass", "pass", "wait", "start", "start", "end", "silence", "flake", "ready", "roll")
events = st.lists(st.tuples(st.sampled_from(EVENTS), numbers), max_size=60)
worlds = st.builds(World.of, specs(), pools(), memories)
LONG = 50
"""Passes, half a minute each, that are enough for every calm and every rollout here."""


def happens(world: World, event: str, number: int) -> None:
    """One thing of the many that happen to a pool."""
    one = world.one(number)
    if event == "wait":
        world.now += SECOND * (number % 700)
    elif event == "start":
        world.start_build(number)
    elif event == "end":
        world.end_build(number)
    elif event == "ready":
        world.start_builders()
    elif event == "roll":
        # Back to a former revision too: what was outdated is wanted again then.
        world.revision = number % 3
    elif one is not None and event == "silence":
        one.is_silent = not one.is_silent
    elif one is not None and event == "flake":
        one.is_ready = not one.is_ready


def a_past(world: World, past: list[tuple[str, int]]) -> None:
    for event, number in past:
        if event == "pass":
            world.step()
        else:
            happens(world, event, number)


def settle(world: World, passes: int = LONG) -> None:
    """Time in which nothing happens, but for builders that become ready."""
    for _ in range(passes):
        world.now += 30 * SECOND
        world.start_builders()
        world.step()


def end_everything(world: World) -> None:
    """All builds end, and every daemon says so."""
    for truth in world.builders.values():
        truth.is_silent, truth.builds = False, 0


@given(worlds, events)
def test_no_build_is_lost_before_it_is_long_overdue(world, past):
    a_past(world, past)
    for truth in world.killed:
        assert world.now >= truth.retired + MAX_BUILD + NOTICE


@given(worlds, events)
def test_a_pool_comes_to_rest_with_as_many_builders_as_wanted(world, past):
    spec = world.spec
    a_past(world, past)
    end_everything(world)
    settle(world)
    pool = world.observed()
    assert is_empty(world.decided())
    assert len(pool) == len(current(pool)) == ready(pool) == world.memory.size
    assert world.memory.size == (spec.scaling.min if spec.replicas is None else spec.replicas)


@given(worlds, events)
def test_a_pool_whose_builds_go_on_comes_to_rest_as_well(world, past):
    a_past(world, past)
    settle(world, passes=350)  # Until what retired is overdue.
    pool = world.observed()
    assert is_empty(world.decided())
    assert pool == current(pool)
    assert len(pool) >= world.memory.size
    extra = len(pool) - world.memory.size
    assert not extra or not any(builder.builds == 0 for builder in pool)


@given(specs(), st.integers(0, 6), st.lists(numbers, max_size=8), events)
def test_a_broken_revision_takes_no_more_than_the_rollout_allows(spec, size, builds, past):
    rollout = spec.builders.rollout
    world = World(spec.model_copy(update={"replicas": size}))
    settle(world, passes=2)
    for number in builds:
        world.start_build(number)
    world.revision, world.is_broken = 1, True
    for event, number in past:
        if event in {"start", "end", "wait", "silence"}:
            happens(world, event, number)
        world.start_builders()
        world.step()
        pool = world.observed()
        assert len(current(pool)) <= rollout.max_surge + rollout.max_unavailable
        assert ready(pool) >= size - rollout.max_unavailable
    settle(world, passes=350)
    assert is_empty(world.decided())
    assert ready(world.observed()) == max(0, size - rollout.max_unavailable)


@given(specs(replicas=False), st.integers(0, 12), st.integers(0, 12), st.data())
def test_a_load_that_comes_and_goes_changes_the_size_at_most_once(spec, low, high, data):
    idle_after = int(spec.scaling.idle_after.total_seconds())
    world = World(a_spec(idle_after="10m").model_copy(update={"scaling": spec.scaling}))
    world.step()
    world.start_builders()
    truth = world.one(0)
    assume(truth is not None)
    sizes = []
    for turn in range(30):
        truth.builds = high if turn % 2 else low
        sizes.append(world.step().size)
        world.start_builders()
        world.now += SECOND * data.draw(st.integers(0, idle_after)) / 1.001
    # The first load is no change: it is what the pool starts with.
    changes = [(a, b) for a, b in pairwise(sizes) if a != b]
    assert len(changes) <= 1
    assert all(a < b for a, b in changes)


# --- two operators that both think they lead -----------------------------------------------------


@st.composite
def disputes(draw: st.DrawFn) -> list[tuple[str, int, int]]:
    """Things that happen, and how many of them the second operator missed."""
    return draw(
        st.lists(st.tuples(st.sampled_from(EVENTS), numbers, st.integers(0, 5)), max_size=60)
    )


def with_loads_of(pool: list[Builder], earlier: list[Builder]) -> list[Builder]:
    """Builders as they are, with what their daemons said at an earlier time."""
    said = {(builder.index, builder.created): builder for builder in earlier}
    views = [(builder, said.get((builder.index, builder.created))) for builder in pool]
    return [
        replace(builder, builds=old and old.builds, as_of=old and old.as_of)
        for builder, old in views
    ]


@given(worlds, disputes(), st.booleans())
def test_two_leaders_lose_no_build_and_come_to_rest(world, past, only_loads_are_old):
    views = [world.observed()]
    for event, number, missed in past:
        if event == "pass":
            fresh, old = world.observed(), views[-1 - min(missed, len(views) - 1)]
            late = with_loads_of(fresh, old) if only_loads_are_old else old
            both = [(world.decided(view), view) for view in (fresh, late)]
            for decision, view in both if number % 2 else both[::-1]:
                world.apply(decision, view)
                for each in range(number % 5):  # What serves again is used at once.
                    world.start_build(each)
        else:
            happens(world, event, number)
        views.append(world.observed())
    for truth in world.killed:
        assert world.now >= truth.retired + MAX_BUILD + NOTICE
    end_everything(world)
    settle(world)
    pool = world.observed()
    assert is_empty(world.decided())
    assert len(pool) == len(current(pool)) == world.memory.size


@pytest.mark.parametrize("restored_first", [True, False])
def test_what_one_leader_restores_another_must_not_remove(restored_first):
    # Both are right about what they saw: only whoever carries it out can tell that it has changed.
    pool = [a_builder(0, 1), a_builder(1, retired=NOW - IDLE_AFTER)]
    world = World.of(a_spec(slots=1, targetUtilization=100), pool, LastDecision(1))
    late = world.observed()
    world.start_build(0)
    fresh = world.observed()
    both = [(world.decided(fresh), fresh), (world.decided(late), late)]
    assert (both[0][0].restore, both[1][0].remove) == ((1,), (1,))
    for decision, view in both if restored_first else both[::-1]:
        world.apply(decision, view)
        world.start_build(1)
    assert not world.killed
    assert set(world.builders) == ({0, 1} if restored_first else {0})
