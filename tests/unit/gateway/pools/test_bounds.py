"""What waits and what goes on, each in a room of its own."""

from __future__ import annotations

import itertools
from contextlib import ExitStack, suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from buildpool.core.naming import PoolKey
from buildpool.gateway.pools import bounds
from buildpool.gateway.pools.bounds import (
    MAX_REQUESTS,
    MAX_REQUESTS_OF_ALL,
    MAX_REQUESTS_OF_CLIENT,
    OWN_REQUESTS,
    RequestBounds,
    RouterBounds,
)
from buildpool.gateway.slots.refusals import Exhausted

POOL = PoolKey("builds", "ci")


def held(requests: RequestBounds, stack: ExitStack, client: str, number: int, **how: bool) -> None:
    """So many requests of a client that are not over."""
    for _ in range(number):
        stack.enter_context(requests.asked_by(client, has_slot=how.get("has_slot", False)))


def test_a_client_whose_builds_wait_goes_on_with_those_that_run() -> None:
    requests = RequestBounds(POOL)
    with ExitStack() as stack:
        held(requests, stack, "ann", MAX_REQUESTS_OF_CLIENT)
        with pytest.raises(Exhausted, match="2500 requests of this client wait already"):
            held(requests, stack, "ann", 1)
        held(requests, stack, "ann", 1, has_slot=True)


def test_a_client_that_builds_as_much_as_it_may_can_wait_for_more() -> None:
    requests = RequestBounds(POOL)
    with ExitStack() as stack:
        held(requests, stack, "ann", MAX_REQUESTS_OF_CLIENT, has_slot=True)
        with pytest.raises(Exhausted, match="2500 requests of this client go on already"):
            held(requests, stack, "ann", 1, has_slot=True)
        waiting = stack.enter_context(requests.asked_by("ann", has_slot=False))
        waiting.has_slot()
        assert (requests.waiting, requests.going_on) == (1, MAX_REQUESTS_OF_CLIENT)


def test_the_other_clients_of_a_pool_have_room_and_the_pool_has_an_end() -> None:
    requests = RequestBounds(POOL)
    with ExitStack() as stack:
        held(requests, stack, "ann", MAX_REQUESTS_OF_CLIENT)
        held(requests, stack, "bob", MAX_REQUESTS - MAX_REQUESTS_OF_CLIENT)
        with pytest.raises(Exhausted, match="pool builds/ci: 3000 requests wait already"):
            held(requests, stack, "cid", 1)


def test_all_pools_together_have_an_end_and_each_has_some_for_itself() -> None:
    router = RouterBounds()
    full = [RequestBounds(PoolKey("builds", name), router) for name in "ab"]
    with ExitStack() as stack:
        for pool in full:
            for client in ("ann", "bob"):
                with suppress(Exhausted):
                    held(pool, stack, client, MAX_REQUESTS // 2)
        with pytest.raises(Exhausted, match="4000 requests of all pools wait already"):
            held(full[1], stack, "ann", 1)
        assert sum(pool.waiting for pool in full) == MAX_REQUESTS_OF_ALL + 2 * OWN_REQUESTS
        third = RequestBounds(PoolKey("builds", "c"), router)
        held(third, stack, "ann", OWN_REQUESTS)
        with pytest.raises(Exhausted, match="of all pools wait already"):
            held(third, stack, "ann", 1)
    assert not router.waiting


def test_what_belongs_to_a_slot_is_never_refused_because_of_other_pools() -> None:
    router = RouterBounds()
    *others, third = [RequestBounds(PoolKey("builds", name), router) for name in "abc"]
    with ExitStack() as stack:
        for pool in others:
            for client, has_slot in itertools.product(("ann", "bob"), (False, True)):
                with suppress(Exhausted):
                    held(pool, stack, client, MAX_REQUESTS // 2, has_slot=has_slot)
        held(third, stack, "ann", OWN_REQUESTS - 1)
        waiting = stack.enter_context(third.asked_by("ann", has_slot=False))
        held(third, stack, "ann", MAX_REQUESTS // 2, has_slot=True)
        waiting.has_slot()
        assert (third.waiting, third.going_on) == (OWN_REQUESTS - 1, MAX_REQUESTS // 2 + 1)


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["ann", "bob"]),
            st.booleans(),
            st.sampled_from(["has its slot", "is over", "waits"]),
        )
    )
)
def test_whatever_becomes_of_requests_none_is_counted_twice_and_none_once_it_is_over(
    asked: list[tuple[str, bool, str]],
) -> None:
    with pytest.MonkeyPatch.context() as patch, ExitStack() as stack:
        patch.setattr(bounds, "MAX_REQUESTS_OF_CLIENT", 2)
        patch.setattr(bounds, "MAX_REQUESTS", 3)
        requests, there = RequestBounds(POOL), 0
        for client, has_slot, what in asked:
            own = stack.enter_context(ExitStack())
            try:
                request = own.enter_context(requests.asked_by(client, has_slot=has_slot))
                if what == "has its slot":
                    request.has_slot()
            except Exhausted:
                own.close()  # as the request ends
            else:
                there += 1
                if what == "is over":
                    own.close()
                    there -= 1
            assert requests.waiting + requests.going_on == there
            assert max(requests.waiting, requests.going_on) <= 3
        stack.close()
        assert (requests.waiting, requests.going_on) == (0, 0)


async def test_what_is_read_of_one_kind_waits_for_no_other_kind() -> None:
    """Also where the kinds have the same bound: what hangs of one would hold up the other."""
    requests = RequestBounds(POOL)
    async with requests.reader("ann", "questions", 1):
        assert requests.reader("ann", "questions", 1).locked()
        assert not requests.reader("ann", "solves", 1).locked()
        assert not requests.reader("bob", "questions", 1).locked()
