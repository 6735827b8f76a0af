"""How far a connection has come, and what each event makes of it."""

from __future__ import annotations

from datetime import timedelta

from hypothesis import given
from hypothesis import strategies as st

from buildpool.core.routing import states
from buildpool.core.routing.connection import Connection
from buildpool.core.routing.states import (
    ACTIVE,
    ADMITTED,
    HOLDING,
    PATIENCE,
    QUEUED,
    RENEWED,
    TABLE,
    TERMS,
    TIED,
    Event,
    Lease,
    State,
    needs_slot,
)
from samples import NOW

BEGINNINGS = (Event.SESSION, Event.PROBE, Event.BUILD)
GAPS = st.integers(0, 6000).map(lambda millis: timedelta(milliseconds=millis))


def drawn() -> dict[State, list[str]]:
    """The rows of the drawing."""
    lines = [line.split() for line in (states.__doc__ or "").splitlines()]
    return {State(words[0]): words[1:] for words in lines if words and words[0] in set(State)}


def test_the_drawing_is_the_table() -> None:
    found = drawn()
    assert found.keys() == TABLE.keys() == set(State)
    for state, cells in found.items():
        assert len(cells) == len(Event)
        for event, cell in zip(Event, cells, strict=True):
            stays = "=" if event is Event.HELLO and state in RENEWED else "."
            assert cell == (stays if TABLE[state][event] is state else TABLE[state][event])


def test_each_event_is_defined_in_each_state() -> None:
    assert all(TABLE[state].keys() == set(Event) for state in State)


def test_what_holds_without_a_stream_has_a_lease_and_what_waits_for_others_has_none() -> None:
    assert {*HOLDING, State.RESTING, State.RESUMED, State.QUIET} <= TERMS.keys()
    assert TERMS.keys().isdisjoint({*QUEUED, *ACTIVE, State.GONE})
    assert all(TABLE[state][Event.EXPIRES] not in (state, *ADMITTED) for state in TERMS)
    for state in TIED:
        assert TABLE[state][Event.EXPIRES] is State.WAITING, "its builder may go before it"
    unleased = {*State} - {*TERMS, *TIED}
    assert all(TABLE[state][Event.EXPIRES] is state for state in unleased)


def test_whatever_begins_has_a_builder_and_what_has_ended_has_none_that_is_counted() -> None:
    for state in State:
        if state is not State.GONE:
            # A session on a builder without a slot is there, and only its solve waits.
            is_bound = state in (*TIED, State.QUIET)
            there = (*ACTIVE, State.RESUMED, *([State.ATTACHED] * is_bound))
            assert all(TABLE[state][event] in there for event in BEGINNINGS)
        if state in ACTIVE:
            assert TABLE[state][Event.ENDED] not in ACTIVE


def test_a_slot_is_given_only_to_who_waits_for_one() -> None:
    for state in State:
        goes_on = TABLE[state][Event.SLOT] in HOLDING or TABLE[state][Event.SLOT] is not state
        assert goes_on == (state in (*QUEUED, *HOLDING))
        assert TABLE[state][Event.SLOT] in (state, *HOLDING, State.BUILDING)


def test_nobody_comes_from_the_queue_to_a_slot_or_a_builder_by_asking_again() -> None:
    for state in State:
        for event in (Event.HELLO, Event.CLAIM, Event.ATTACH, Event.GIVES_UP, Event.EXPIRES):
            assert state in ADMITTED or TABLE[state][event] not in ADMITTED


def test_who_has_a_slot_or_a_builder_begins_and_of_the_others_only_the_session_that_is_owed() -> (
    None
):
    free = {(s, e) for s in State for e in BEGINNINGS if not needs_slot(s, e)}
    owed = {(State.OWED, Event.SESSION), (State.CALLED, Event.SESSION)}
    # Who rests has a right to its own builder, where nobody asks, and to no other.
    to_its_own = {State.RESTING, State.REJOINED}
    assert free == {(s, e) for s in ADMITTED - to_its_own for e in BEGINNINGS} | owed


def test_of_the_last_process_nothing_has_a_slot_but_what_runs_or_has_had_its_turn() -> None:
    assert TABLE[State.RESUMED][Event.IDLE] not in ADMITTED
    assert all(TABLE[state][Event.IDLE] is state for state in State if state is not State.RESUMED)
    of_before = {State.QUIET, State.BOUND}
    assert of_before.isdisjoint(ADMITTED)
    for state in of_before:
        free = {TABLE[state][event] for event in Event if event not in (*BEGINNINGS, Event.SLOT)}
        assert free.isdisjoint(ADMITTED)


def test_without_a_turn_in_the_queue_nobody_goes_on_for_ever() -> None:
    """Each way that needs neither a turn nor a free slot leads to a state that needs one."""
    own = {
        state: {
            TABLE[state][event]
            for event in Event
            if not (event in BEGINNINGS and needs_slot(state, event))
            and not (event is Event.SLOT and state in (State.WAITING, *TIED))
        }
        - {state}
        for state in State
    }
    # To ask and ask is one lease (as tested below); to be in the queue and leave it holds nothing.
    own[State.ASKED] -= {State.ASKING}
    own[State.NEXT] -= {State.LAPSED}
    own[State.CALLED] -= {State.OWED}
    # Where there is no builder at all, there is nothing to hold.
    own[State.BOUND] -= {State.QUIET}
    for state in (State.RECALLED, State.RESTING, State.REJOINED):
        own[state] -= {State.NEXT}
    own[State.ASIDE] -= {State.WAITING, State.ATTACHED}
    own[State.WAITING] -= {State.ASIDE}
    own[State.ATTACHED] -= {State.WAITING}

    def walk(state: State, way: tuple[State, ...]) -> None:
        assert state not in way, f"{way} leads back to {state}"
        for following in own[state]:
            walk(following, (*way, state))

    for state in State:
        walk(state, ())


@given(st.lists(GAPS))
def test_no_lease_becomes_longer_than_twice_its_term_nor_shorter(gaps: list[timedelta]) -> None:
    lease, now = Lease.of(PATIENCE, now=NOW), NOW
    for gap in gaps:
        now += gap
        before, lease = lease.expires_at, lease.renewed(now=now)
        assert before <= lease.expires_at <= NOW + 2 * PATIENCE
    assert lease.is_over(now=NOW + 2 * PATIENCE)


@given(st.lists(st.tuples(st.sampled_from([Event.PROBE, Event.SESSION, Event.HELLO]), GAPS)))
def test_questions_that_follow_each_other_share_one_lease(
    questions: list[tuple[Event, timedelta]],
) -> None:
    known, now = Connection("ann", NOW, State.ASKING), NOW
    known.on(Event.ENDED, now=now)
    for event, gap in questions:
        now += gap
        known.on(event, now=now)
        if event is not Event.HELLO:
            known.on(Event.ENDED, now=now)
    assert known.state is State.ASKED
    assert known.lease is not None
    assert known.lease.expires_at <= NOW + 2 * PATIENCE
