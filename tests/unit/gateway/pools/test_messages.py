"""How much of messages the router has in its memory, and who waits for that."""

from __future__ import annotations

import asyncio
from contextlib import ExitStack

import pytest
from hypothesis import given
from hypothesis import strategies as st

import virtual_time
from buildpool.buildkit.solve_requests import MAX_MESSAGE_BYTES
from buildpool.core.naming import PoolKey
from buildpool.gateway.pools.messages import (
    POOL_BYTES,
    ROOM_BYTES,
    SLOW_SECONDS,
    MessageRoom,
    Seat,
)

FIRST, SECOND, THIRD = (PoolKey("builds", name) for name in ("a", "b", "c"))
MIB = 1 << 20


async def settled() -> None:
    """Until everything that can go on has gone on."""
    for _ in range(10):
        await asyncio.sleep(0)


class Reading:
    """Messages that are read, each by a task of its own."""

    def __init__(self) -> None:
        self.room = MessageRoom()
        self.stack = ExitStack()

    def seat(self, pool: PoolKey) -> Seat:
        return self.stack.enter_context(self.room.message(pool))

    async def begins(self, pool: PoolKey) -> tuple[Seat, asyncio.Task[None]]:
        seat = self.seat(pool)
        task = asyncio.create_task(seat.read())
        await settled()
        return seat, task


async def test_what_finds_no_room_waits_until_there_is_some() -> None:
    reading = Reading()
    first, second, third = [await reading.begins(FIRST) for _ in range(3)]
    assert [task.done() for _, task in (first, second, third)] == [True, True, False]
    await first[0].come(MIB)
    await settled()
    assert not third[1].done(), "what is left is too little for the longest"
    first[0].leave()
    await third[1]


async def test_no_pool_takes_all_the_room() -> None:
    reading = Reading()
    many = [await reading.begins(FIRST) for _ in range(20)]
    assert sum(task.done() for _, task in many) == POOL_BYTES // MAX_MESSAGE_BYTES
    _, other = await reading.begins(SECOND)
    assert other.done()
    _, third = await reading.begins(THIRD)
    assert third.done(), "each may always read one message"
    _, waiting = await reading.begins(THIRD)
    assert not waiting.done()
    for _, task in many:
        task.cancel()
    waiting.cancel()


async def test_pools_take_turns() -> None:
    reading = Reading()
    readers = [await reading.begins(pool) for pool in (FIRST, FIRST, SECOND, THIRD)]
    waiting = [await reading.begins(pool) for pool in (FIRST, FIRST, SECOND, THIRD)]
    assert not any(task.done() for _, task in waiting)
    served: list[PoolKey] = []
    for seat, _ in (*readers, *waiting):
        before = [task for _, task in waiting if task.done()]
        seat.leave()
        await settled()
        served += [each.pool for each, task in waiting if task.done() and task not in before]
    assert sorted(served, key=str) == [FIRST, FIRST, SECOND, THIRD]
    assert served.index(THIRD) < len(served) - 1 or served.index(SECOND) < len(served) - 1


def test_somebody_who_sends_slowly_does_not_hold_the_room() -> None:
    async def story() -> None:
        reading = Reading()
        slow = [await reading.begins(FIRST) for _ in range(2)]
        _, waiting = await reading.begins(FIRST)
        assert not waiting.done()
        await asyncio.sleep(SLOW_SECONDS)
        await waiting
        assert all(task.done() for _, task in slow)

    virtual_time.run(story())


async def test_messages_that_have_come_wait_for_the_copies_of_others() -> None:
    """However many pools read one each at the same time."""
    reading = Reading()
    seats = [(await reading.begins(PoolKey("builds", f"{number}")))[0] for number in range(5)]
    coming = [asyncio.create_task(seat.come(MAX_MESSAGE_BYTES)) for seat in seats]
    await settled()
    assert [task.done() for task in coming] == [True] * 3 + [False] * 2
    seats[0].leave()
    await settled()
    assert sum(task.done() for task in coming) == 4


async def test_who_gives_up_leaves_its_place_to_the_next() -> None:
    reading = Reading()
    first, _ = await reading.begins(FIRST)
    await reading.begins(FIRST)
    _, gone = await reading.begins(FIRST)
    _, following = await reading.begins(FIRST)
    gone.cancel()
    await settled()
    first.leave()
    await following


STEPS = st.lists(
    st.tuples(
        st.sampled_from([FIRST, SECOND, THIRD]),
        st.integers(1, MAX_MESSAGE_BYTES),
        st.integers(0, 5),
        st.booleans(),
    ),
    max_size=30,
)


@given(STEPS)
def test_all_are_served_and_never_more_is_in_memory_than_there_is_room_for(
    steps: list[tuple[PoolKey, int, int, bool]],
) -> None:
    async def story() -> None:
        room, served = MessageRoom(), 0

        async def one(pool: PoolKey, size: int, pauses: int, gives_up: bool) -> None:
            nonlocal served
            with room.message(pool) as seat:
                await seat.read()
                for _ in range(pauses):
                    await asyncio.sleep(0)
                if not gives_up:
                    await seat.come(size)
                    come = [each.size for each in room.seats if each.has_come]
                    assert sum(come) <= max(ROOM_BYTES, size)
                    await asyncio.sleep(0)
            served += 1

        await asyncio.gather(*(one(*step) for step in steps))
        assert served == len(steps)
        assert not room.seats
        assert not room._lines

    virtual_time.run(story())


@pytest.mark.parametrize("size", [1, MAX_MESSAGE_BYTES])
async def test_a_message_alone_never_waits(size: int) -> None:
    seat = Reading().seat(FIRST)
    async with asyncio.timeout(5):
        await seat.read()
        await seat.come(size)
