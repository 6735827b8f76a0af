"""What a real Envoy makes of its configuration: a pool that is odd must not harm others."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import grpc
import grpc.aio
import pytest

from buildpool.core.pki import KeyPair
from daemons import until
from gateway.lab import CONTROL, Lab, PoolLab, call
from limits import patience

HELLO = f"{CONTROL}ListWorkers"
NONE = b"no certificate"


async def serves(lab: Lab, pool: PoolLab) -> bool:
    """Whether a client of the pool reaches its builder."""
    async with lab.connect(pool) as channel:
        try:
            return bool(await call(channel, HELLO))
        except grpc.aio.AioRpcError:
            return False


@pytest.mark.parametrize("part", ["certificate", "key", "authority", "upstream"])
async def test_certificates_that_are_none_harm_their_own_pool_alone(lab: Lab, part: str) -> None:
    pools = [PoolLab(name=name) for name in ("a", "b", "c", "d")]
    odd = pools[1]
    for pool in pools:
        await lab.add_pool(pool, f"{pool.name}-builder-0")
    good = odd.config()
    stranger = pools[2].config().server
    await lab.becomes(
        odd,
        {
            "certificate": replace(good, server=KeyPair(NONE, good.server.key)),
            "key": replace(good, server=KeyPair(good.server.certificate, stranger.key)),
            "authority": replace(good, trust=NONE),
            "upstream": replace(good, upstream=KeyPair(NONE, NONE)),
        }[part],
    )
    late = PoolLab(name="e")
    await lab.add_pool(late, "e-builder-0")
    for pool in (*pools, late):
        assert await serves(lab, pool), "what was good before serves on, and so do the others"
    assert lab.metrics.registry.get_sample_value("buildpool_gateway_configurations_rejected_total")
    await lab.becomes(odd)
    assert await serves(lab, odd)


async def test_a_pool_of_which_all_is_garbage_is_not_served(lab: Lab) -> None:
    odd, other = PoolLab(name="a"), PoolLab(name="b")
    lab.source.configs[odd.key] = replace(odd.config(), server=KeyPair(NONE, NONE), trust=NONE)
    lab.source.changed(odd.key)
    await lab.add_pool(other, "b-builder-0")
    async with asyncio.timeout(patience(5)):
        # Envoy waits a second for secrets before it goes on without them.
        while not await serves(lab, other):  # noqa: ASYNC110 - nothing wakes
            await asyncio.sleep(0.05)
    assert not await serves(lab, odd)


async def test_a_pool_may_list_a_name_that_it_has_anyway(lab: Lab) -> None:
    pool = PoolLab(hostnames=("ci.builds.svc", "x.example.com", "x.example.com"))
    other = PoolLab(name="other")
    await lab.add_pool(pool, "ci-builder-0")
    await lab.add_pool(other, "other-builder-0")
    assert await serves(lab, pool)
    assert await serves(lab, other), "the listener was not refused"


async def test_a_pool_cannot_take_the_name_of_anothers_service(lab: Lab) -> None:
    victim, usurper = PoolLab(name="web"), PoolLab(name="a", namespace="a")
    await lab.add_pool(usurper, "a-builder-0")
    await lab.add_pool(victim, "web-builder-0")
    async with lab.connect(victim) as channel:
        await call(channel, HELLO)
        usurper.hostnames = ("web.builds.svc",)
        await lab.becomes(usurper)
        assert list(lab.status.refused) == [usurper.key]
        assert await call(channel, HELLO)
    assert await serves(lab, victim)


async def test_a_router_that_starts_again_changes_nothing(lab: Lab) -> None:
    pools = [PoolLab(name=name) for name in ("a", "b")]
    for pool in pools:
        await lab.add_pool(pool, f"{pool.name}-builder-0")
    changes = "listener_manager.listener_modified"
    updates = "listener_manager.lds.update_success"
    before = [await lab.counted(name) for name in (changes, updates)]
    await lab.stop_router()
    await lab.start_router()
    await lab.settled()
    after = [await lab.counted(name) for name in (changes, updates)]
    assert after[0] == before[0]
    # The one answer that it waits for, which is empty.
    assert after[1] <= before[1] + 1
    assert await asyncio.gather(*(serves(lab, pool) for pool in pools)) == [True, True]


async def test_a_pool_is_said_to_be_served_only_once_envoy_has_taken_it(lab: Lab) -> None:
    pool, stranger = PoolLab(), PoolLab(name="other")
    await lab.add_pool(pool, "ci-builder-0")
    first = replace(pool.config(), acknowledgement="first")
    await lab.becomes(pool, first)
    said = lab.status.serves[pool.key]
    await until(lambda: said[-1] == "first", "it is said to be served")
    assert await serves(lab, pool)
    odd = KeyPair(first.server.certificate, stranger.config().server.key)
    await lab.becomes(pool, replace(first, server=odd, acknowledgement="what Envoy refuses"))
    assert await serves(lab, pool), "what was good before serves on"
    await lab.becomes(pool, replace(pool.config(), acknowledgement="last"))
    await until(lambda: said[-1] == "last", "it is said to be served as it is now")
    assert said[-2:] == ["first", "last"]
    # What Envoy need not know of is served at once.
    more = pool.config(slots=2)
    await lab.becomes(pool, replace(more, server=first.server, acknowledgement="slots"))
    await lab.settled()
    await until(lambda: said[-1] == "slots", "that is said, too")


async def test_a_pool_that_comes_while_there_is_no_envoy_is_said_to_be_served_by_nobody(
    lab: Lab,
) -> None:
    pool = PoolLab()
    await lab.add_pool(pool, "ci-builder-0")
    assert lab.envoy is not None
    lab.envoy.kill()
    await lab.envoy.wait()
    await until(lambda: lab.metric("envoys") == 0, "the router knows that it is gone")
    late = PoolLab(name="late")
    lab.source.configs[late.key] = replace(late.config(), acknowledgement="late")
    lab.source.changed(late.key)
    await until(lambda: lab.router.pools.find(late.key) is not None, "the router knows it")
    assert lab.status.serves.get(late.key, []) in ([], [None])
    await lab.start_envoy()
    await lab.settled()
    assert lab.status.serves[late.key][-1] == "late"
    assert await serves(lab, pool)
