"""Who gets the next free slot."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from buildpool.core.routing.fairness import Turns, Waiting, next_in_line
from samples import NOW

CLIENTS = st.sampled_from(["ann", "bob", "cid"])


def a_queue(*clients: str) -> list[Waiting]:
    """Connections of these clients, in the order of their arrival."""
    return [Waiting(f"{n}", client, NOW, n) for n, client in enumerate(clients)]


def served(
    queue: list[Waiting], slots: int, weights: dict[str, int] | None = None
) -> list[Waiting]:
    """Who gets so many slots, one after the other, that stay taken."""
    held: Counter[str] = Counter()
    turns = Turns()
    got = []
    for _ in range(slots):
        following = next_in_line(queue, held=held, turns=turns, weights=weights or {})
        if following is None:
            break
        turns.take(following.client, (weights or {}).get(following.client, 1))
        queue = [waiting for waiting in queue if waiting != following]
        held[following.client] += 1
        got.append(following)
    return got


@given(st.lists(CLIENTS, max_size=30), st.integers(0, 30))
def test_slots_are_given_as_long_as_anybody_waits(clients: list[str], slots: int) -> None:
    assert len(served(a_queue(*clients), slots)) == min(slots, len(clients))


@given(st.lists(CLIENTS, max_size=30), st.integers(0, 30))
def test_within_a_client_who_came_first_is_served_first(clients: list[str], slots: int) -> None:
    got = served(a_queue(*clients), slots)
    for client in set(clients):
        orders = [waiting.order for waiting in got if waiting.client == client]
        assert orders == sorted(orders)


@given(st.lists(CLIENTS, max_size=40), st.integers(0, 30))
def test_no_client_gets_two_slots_more_than_one_that_still_waits(
    clients: list[str], slots: int
) -> None:
    queue = a_queue(*clients)
    got = served(queue, slots)
    held = Counter(waiting.client for waiting in got)
    still = {waiting.client for waiting in queue if waiting not in got}
    assert all(held[client] <= held[other] + 1 for client in held for other in still)


@given(st.integers(1, 200))
def test_who_holds_nothing_is_next_however_many_a_noisy_client_has_waiting(noise: int) -> None:
    queue = a_queue(*["ann"] * noise, "bob")
    assert served(queue, 2)[1].client == "bob"


def test_slots_are_shared_by_weight() -> None:
    got = served(a_queue(*["ann", "bob"] * 20), 12, {"ann": 3, "bob": 1})
    assert Counter(waiting.client for waiting in got) == {"ann": 9, "bob": 3}


def test_where_nobody_waits_nobody_is_next() -> None:
    assert next_in_line([], held={}, turns=Turns(), weights={}) is None


def in_turn(queue: list[Waiting], number: int, weights: dict[str, int]) -> list[str]:
    """The clients that get a single slot one after the other, each for a short build."""
    turns, got = Turns(), []
    for _ in range(number):
        following = next_in_line(queue, held={}, turns=turns, weights=weights)
        assert following is not None
        turns.take(following.client, weights.get(following.client, 1))
        queue = [waiting for waiting in queue if waiting != following]
        got.append(following.client)
    return got


@given(st.integers(1, 100))
def test_a_single_slot_is_taken_in_turns_however_many_one_has_waiting(noise: int) -> None:
    assert in_turn(a_queue(*["ann"] * (noise + 1), "bob"), 2, {}) == ["ann", "bob"]


def test_turns_are_as_long_as_weights_say() -> None:
    queue = a_queue(*["ann", "bob"] * 40)
    assert Counter(in_turn(queue, 40, {"ann": 3})) == {"ann": 30, "bob": 10}


def test_who_was_away_has_saved_up_nothing() -> None:
    turns = Turns()
    for _ in range(10):
        turns.take("ann", 1)
    turns.take("bob", 1)
    turns.take("bob", 1)
    assert turns.of("ann") <= turns.of("bob")
