"""The pools of a gateway, as they come and go."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from buildpool.gateway.pools import served as module
from buildpool.gateway.slots.refusals import NotServed
from buildpool.gateway.slots.scheduler import SlotScheduler
from samples import NOW
from unit.gateway.pools_lab import ANN, CLIENTS, PoolsLab
from unit.gateway.xds.configs import a_config

LONG = timedelta(hours=1)


async def test_what_waits_is_counted_by_client() -> None:
    config = a_config(clients=CLIENTS)
    lab = PoolsLab(config)
    served = lab.pools.find(config.key)
    assert served is not None
    asked = [
        asyncio.ensure_future(served.scheduler.admit("a", ANN, max_wait=LONG)),
        asyncio.ensure_future(served.scheduler.any_builder("b", ANN, max_wait=LONG)),
        asyncio.ensure_future(
            served.scheduler.admit("c", "somebody who was removed", max_wait=LONG)
        ),
    ]
    await asyncio.sleep(0)
    assert served.waiting == {"ann": 2, "bob": 0}
    for each in asked:
        each.cancel()
    await asyncio.gather(*asked, return_exceptions=True)
    assert served.waiting == {"ann": 0, "bob": 0}


async def test_a_pool_that_goes_is_closed_once_nobody_waits_for_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Nothing else happens then that would have Envoy's chain for it removed."""
    monkeypatch.setattr(module, "TICK_SECONDS", 0.01)
    config = a_config(clients=CLIENTS)
    lab = PoolsLab(config)
    served = lab.pools.find(config.key)
    assert served is not None
    waiting = asyncio.ensure_future(served.scheduler.admit("a", ANN, max_wait=LONG))
    await asyncio.sleep(0)
    running = asyncio.ensure_future(lab.pools.run())
    lab.loses(config.key)
    assert lab.closed == [], "somebody still waits who has not been refused yet"
    with pytest.raises(NotServed):
        await waiting
    async with asyncio.timeout(5):
        while not lab.closed:  # noqa: ASYNC110 - a test's own look
            await asyncio.sleep(0.01)
    assert lab.closed == [config.key]
    assert lab.pools.configs == {}
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_no_slot_is_given_while_slots_are_held() -> None:
    config = a_config(clients=CLIENTS)
    lab = PoolsLab(config)
    lab.has_builder = True
    lab.pools.hold_slots()
    served = lab.pools.find(config.key)
    assert served is not None
    asked = asyncio.ensure_future(served.scheduler.admit("a", ANN, max_wait=LONG))
    await asyncio.sleep(0)
    assert served.waiting["ann"] == 1
    lab.pools.release_slots()
    async with asyncio.timeout(5):
        await asked


async def test_what_ends_with_the_process_makes_room_for_nobody() -> None:
    """The next one would take those who got a slot last of all for some that build."""
    config = a_config(clients=CLIENTS, slots=1)
    lab = PoolsLab(config)
    lab.has_builder = True
    served = lab.pools.find(config.key)
    assert served is not None
    scheduler = served.scheduler
    running = asyncio.ensure_future(lab.pools.run())
    await scheduler.admit("builds", ANN, max_wait=LONG)
    await scheduler.begin("builds", ANN, None)
    await scheduler.begin("builds", ANN, None, "ref")
    waiting = [
        asyncio.ensure_future(scheduler.admit(f"waits-{number}", ANN, max_wait=LONG))
        for number in range(6)
    ]
    await asyncio.sleep(0)
    noted = lab.memory.recall(config.key)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    scheduler.end("builds", "ref")
    scheduler.end("builds")
    for each in waiting:
        each.cancel()
        await asyncio.gather(each, return_exceptions=True)
    assert lab.memory.recall(config.key) == noted
    assert {home.connection for home in noted} == {"builds"}
    following = SlotScheduler(
        config.key, lambda: lab.pools._state(config.key), clock=lambda: NOW, memory=lab.memory
    )
    builder, *_ = lab.builders(config.key)
    assert following.connections.used(builder, lab.pools._state(config.key)) == 1


async def test_who_had_a_slot_goes_on_until_the_process_ends() -> None:
    config = a_config(clients=CLIENTS, slots=1)
    lab = PoolsLab(config)
    lab.has_builder = True
    served = lab.pools.find(config.key)
    assert served is not None
    await served.scheduler.admit("a", ANN, max_wait=LONG)
    lab.pools.hand_over()
    await served.scheduler.begin("a", ANN, None, "ref")
    assert [(home.connection, home.ref) for home in lab.memory.recall(config.key)] == [
        ("a", ""),
        ("a", "ref"),
    ]


async def test_who_waits_for_a_pool_that_has_closed_is_told_so() -> None:
    config = a_config(clients=CLIENTS)
    lab = PoolsLab(config)
    served = lab.pools.find(config.key)
    assert served is not None
    # It has said no hello, and nothing is known of it.
    following = asyncio.ensure_future(served.scheduler.follow("a", ANN, None))
    await asyncio.sleep(0)
    lab.loses(config.key)
    assert lab.closed == [config.key]
    with pytest.raises(NotServed, match="pool builds/ci is not served here any more"):
        await following


async def test_who_waits_goes_on_waiting_where_a_pool_is_missing_for_a_moment() -> None:
    """Somebody deletes its Secret, and the operator restores it."""
    config = a_config(clients=CLIENTS)
    lab = PoolsLab(config)
    served = lab.pools.find(config.key)
    assert served is not None
    admitting = asyncio.ensure_future(served.scheduler.admit("a", ANN, max_wait=LONG))
    asking = asyncio.ensure_future(served.scheduler.any_builder("b", ANN, max_wait=LONG))
    await asyncio.sleep(0)
    lab.misses(config.key)
    lab.has_builder = True
    lab.pools.refresh(config.key)
    await asyncio.sleep(0)
    assert served.waiting["ann"] == 2, "its builders may be about to go"
    assert not served.is_closing
    lab.configs = {config.key: config}
    lab.pools.refresh(config.key)
    async with asyncio.timeout(5):
        await admitting
        await asking
    lab.now += module.RESTORED
    lab.pools.refresh(config.key)
    assert not served.is_closing


async def test_who_builds_goes_on_where_a_pool_is_missing_for_a_moment() -> None:
    config = a_config(clients=CLIENTS)
    lab = PoolsLab(config)
    lab.has_builder = True
    served = lab.pools.find(config.key)
    assert served is not None
    lab.pools.refresh(config.key)
    await served.scheduler.admit("a", ANN, max_wait=LONG)
    await served.scheduler.begin("a", ANN, None, "first")
    lab.misses(config.key)
    placement = await served.scheduler.begin("a", ANN, None, "second")
    assert placement.builder.name == "ci-builder-0"


async def test_who_asks_all_daemons_waits_for_those_that_a_new_router_has_not_heard() -> None:
    """What it lists would lack their builds."""
    config = a_config(clients=CLIENTS)
    lab = PoolsLab(config)
    lab.has_builder = True
    lab.pools.refresh(config.key)
    async with asyncio.timeout(5):
        await lab.pools.heard(config.key)
    lab.pools.hold_slots()
    waiting = asyncio.create_task(lab.pools.heard(config.key))
    await asyncio.sleep(0)
    assert not waiting.done()
    lab.pools.release_slots()
    async with asyncio.timeout(5):
        await waiting
    lab.pools.hold_slots()
    lab.has_builder = False
    await lab.pools.heard(config.key)
    lab.pools.loads.forget(config.key)
