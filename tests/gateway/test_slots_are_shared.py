"""Which clients wait for a slot, for how long, and which is the next to get one."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping
from contextlib import AsyncExitStack
from datetime import timedelta

import grpc
import grpc.aio
import pytest

from buildpool.buildkit import protobuf
from buildpool.core.api.brief import ClientBrief
from buildpool.gateway.pools import served
from daemons import until
from gateway.asking import (
    HELLO,
    SOLVE,
    a_full_client,
    a_probe,
    a_solve,
    asked,
    begun,
    refusal,
    times_asked,
)
from gateway.builders import CONTROL
from gateway.lab import Lab, PoolLab, call

SESSION, STATUS = f"{CONTROL}Session", f"{CONTROL}Status"


async def test_a_client_that_finds_no_slot_waits_until_a_connection_has_ended(lab: Lab) -> None:
    pool = PoolLab()
    (builder,) = await lab.add_pool(pool, "ci-builder-0")
    first = lab.connect(pool)
    await call(first, HELLO)
    running = begun(first, SOLVE, a_solve())
    await asked(builder, SOLVE)
    async with lab.connect(pool) as second:
        waiting = begun(second, HELLO)
        await lab.queued(pool, 1)
        running.cancel()
        await first.close()
        assert await waiting


async def test_a_client_that_waits_in_vain_is_refused(lab: Lab) -> None:
    pool = PoolLab(max_wait=timedelta(seconds=1))
    (builder,) = await lab.add_pool(pool, "ci-builder-0")
    async with lab.connect(pool) as first, lab.connect(pool) as second:
        await call(first, HELLO)
        running = begun(first, SOLVE, a_solve())
        await asked(builder, SOLVE)
        code, why = await refusal(begun(second, HELLO))
        builder.release.set()
        await running
    assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert why == "pool builds/ci: waited 1s for a slot, 1 of 1 builders busy"


async def test_a_pool_without_builders_is_waited_for(lab: Lab) -> None:
    pool = PoolLab()
    await lab.add_pool(pool)
    async with lab.connect(pool) as channel:
        waiting = begun(channel, HELLO)
        await lab.queued(pool, 1)
        await lab.add_pool(pool, "ci-builder-0")
        assert b"ci-builder-0" in await waiting


async def test_somebody_who_only_looks_takes_no_slot_and_no_turn(lab: Lab) -> None:
    """As buildx ls, inspect and create do: they wait 20 s at most, and say so."""
    pool = PoolLab()
    (builder,) = await lab.add_pool(pool, "ci-builder-0")
    async with lab.connect(pool) as first, lab.connect(pool) as second, lab.connect(pool) as third:
        assert await call(third, HELLO, deadline=20)
        await call(first, HELLO)
        running = begun(first, SOLVE, a_solve())
        await asked(builder, SOLVE)
        waiting = begun(second, HELLO)
        await lab.queued(pool, 1)
        assert b"ci-builder-0" in await call(third, HELLO, deadline=20)
        await lab.queued(pool, 1)
        builder.release.set()
        await running
        assert await waiting


async def test_somebody_who_only_looks_wakes_no_pool(lab: Lab) -> None:
    pool = PoolLab()
    await lab.add_pool(pool)
    async with lab.connect(pool) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await call(channel, HELLO, deadline=20)
    assert error.value.code() is grpc.StatusCode.UNAVAILABLE
    assert error.value.details() == "pool builds/ci has no builder now; a build wakes it"
    assert lab.status.most_waiting.get(pool.key, 0) == 0


async def test_a_client_that_asks_before_it_builds_is_not_overtaken(lab: Lab) -> None:
    pool = PoolLab()
    (builder,) = await lab.add_pool(pool, "ci-builder-0")
    async with lab.connect(pool) as first, lab.connect(pool) as second:
        await call(first, HELLO)
        waiting = begun(second, HELLO)
        await lab.queued(pool, 1)
        builder.release.set()
        await call(first, SOLVE, a_probe("probe"))
        builder.release.clear()
        await call(first, HELLO)
        running = begun(first, SOLVE, a_solve())
        await asked(builder, SOLVE, 2)
        await lab.queued(pool, 1)
        assert not waiting.done()
        builder.release.set()
        assert await running
        assert await waiting


async def test_a_client_that_waits_for_a_pool_that_is_removed_is_refused(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(served, "RESTORED", timedelta(seconds=0.5))
    pool = PoolLab()
    await lab.add_pool(pool)
    async with lab.connect(pool) as channel:
        waiting = begun(channel, HELLO)
        await lab.queued(pool, 1)
        del lab.source.configs[pool.key]
        lab.source.changed(pool.key)
        code, why = await refusal(waiting)
    assert code is grpc.StatusCode.UNAVAILABLE
    assert why == "pool builds/ci is not served here any more"


async def test_a_client_that_waits_is_served_before_the_next_build_of_one_that_was_served(
    lab: Lab,
) -> None:
    pool = PoolLab()
    (builder,) = await lab.add_pool(pool, "ci-builder-0")
    async with AsyncExitStack() as stack:
        ann = [await stack.enter_async_context(lab.connect(pool)) for _ in range(6)]
        bob = await stack.enter_async_context(lab.connect(pool, pool.client("bob")))
        await call(ann[0], HELLO)
        running = begun(ann[0], SOLVE, a_solve())
        await asked(builder, SOLVE)
        theirs = [begun(channel, HELLO) for channel in ann[1:]]
        await lab.queued(pool, 5)
        mine = begun(bob, HELLO)
        await lab.queued(pool, 6)
        builder.release.set()
        assert await running
        done, _ = await asyncio.wait({mine, *theirs}, return_when=asyncio.FIRST_COMPLETED)
        assert done == {mine}
        for task in theirs:
            task.cancel()


async def test_a_build_that_says_no_hello_has_its_session_on_a_builder_and_waits_for_a_slot(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("buildpool.gateway.slots.scheduler.SOLVE_PATIENCE_SECONDS", 0.2)
    monkeypatch.setattr("buildpool.gateway.slots.scheduler.SESSION_PATIENCE_SECONDS", 0.5)
    pool = PoolLab()
    (builder,) = await lab.add_pool(pool, "ci-builder-0")
    async with lab.connect(pool) as first, lab.connect(pool) as second:
        await call(first, HELLO)
        running = begun(first, SOLVE, a_solve("mine"))
        await asked(builder, SOLVE)
        session = second.stream_stream(SESSION)(timeout=60)
        theirs = begun(second, SOLVE, a_solve("theirs"))
        status = begun(second, STATUS, protobuf.field(1, b"theirs"))
        await asked(builder, SESSION)
        await lab.queued(pool, 1)
        assert times_asked(builder, SOLVE) == 1
        assert times_asked(builder, STATUS) == 0, "nothing is asked about a build that waits"
        builder.release.set()
        assert await running
        assert await theirs
        assert await status
        session.cancel()


async def test_a_build_that_says_no_hello_to_a_pool_without_builders_hears_what_would_wait(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("buildpool.gateway.slots.scheduler.SOLVE_PATIENCE_SECONDS", 0.2)
    monkeypatch.setattr("buildpool.gateway.slots.scheduler.SESSION_PATIENCE_SECONDS", 0.5)
    pool = PoolLab()
    await lab.add_pool(pool)
    async with lab.connect(pool) as channel:
        session = channel.stream_stream(SESSION)(timeout=60)
        asks = [
            begun(channel, SOLVE, a_solve("mine")),
            begun(channel, STATUS, protobuf.field(1, b"mine")),
        ]
        await lab.queued(pool, 1)  # so the pool wakes
        for each in asks:
            code, why = await refusal(each)
            assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
            assert "no builder is ready yet" in why
            assert "call ListWorkers just before" in why
        session.cancel()


async def a_queue(
    lab: Lab, pool: PoolLab, stack: AsyncExitStack, clients: Mapping[str, int]
) -> list[tuple[str, grpc.aio.Channel, asyncio.Task[bytes]]]:
    """So many connections of each client that say hello and wait, as the pool has no builder."""
    await lab.add_pool(pool)
    queue = []
    for name, number in clients.items():
        bundle = pool.client(name)
        for _ in range(number):
            channel = await stack.enter_async_context(lab.connect(pool, bundle))
            queue.append((name, channel, begun(channel, HELLO)))
    await lab.queued(pool, sum(clients.values()))
    return queue


def weighted(**weights: int) -> tuple[ClientBrief, ...]:
    """Clients by their names, with these weights."""
    return tuple(a_full_client(name, weight=weight) for name, weight in weights.items())


async def test_slots_that_are_free_at_once_are_shared_by_weight(lab: Lab) -> None:
    pool = PoolLab(slots=8, clients=weighted(ann=3, bob=1))
    async with AsyncExitStack() as stack:
        queue = await a_queue(lab, pool, stack, {"bob": 10, "ann": 10})
        await lab.add_pool(pool, "ci-builder-0")
        await lab.queued(pool, 12)
        await until(lambda: sum(task.done() for _, _, task in queue) == 8, "eight have a slot")
        served = Counter(name for name, _, task in queue if task.done())
        for _, _, task in queue:
            task.cancel()
    assert served == {"ann": 6, "bob": 2}


async def test_one_slot_goes_from_build_to_build_by_weight(lab: Lab) -> None:
    pool = PoolLab(slots=1, clients=weighted(ann=3, bob=1))
    served: list[str] = []

    async def build(name: str, channel: grpc.aio.Channel, hello: asyncio.Task[bytes]) -> None:
        await hello
        served.append(name)
        await call(channel, SOLVE, a_solve(f"{name} {len(served)}"))

    async with AsyncExitStack() as stack:
        queue = await a_queue(lab, pool, stack, {"bob": 12, "ann": 12})
        builds = [asyncio.create_task(build(*each)) for each in queue]
        (builder,) = await lab.add_pool(pool, "ci-builder-0")
        builder.release.set()
        await asyncio.gather(*builds)
    for first in (4, 8, 12, 16):
        assert Counter(served[:first]) == {"ann": first * 3 // 4, "bob": first // 4}
    assert served[16:] == ["bob"] * 8, "ann has built all that she had"
