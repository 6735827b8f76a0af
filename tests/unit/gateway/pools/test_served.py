"""The pools of a gateway, as they come and go."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import timedelta

import pytest

from buildpool.core.api.brief import ClientBrief
from buildpool.core.naming import PoolKey
from buildpool.core.routing.values import Target
from buildpool.gateway.pools import served as module
from buildpool.gateway.pools.config import PoolConfig
from buildpool.gateway.pools.served import ServedPools
from buildpool.gateway.slots.refusals import NotServed
from buildpool.gateway.slots.store import ConnectionStore
from daemons import Silent
from samples import NOW
from unit.gateway.xds.configs import a_tenant

ANN, BOB = "buildpool://ann", "buildpool://bob"
CLIENTS = (ClientBrief(identity=ANN, name="ann"), ClientBrief(identity=BOB, name="bob"))
LONG = timedelta(hours=1)


class Place:
    """A house whose cluster a test sets."""

    def __init__(self, *configs: PoolConfig) -> None:
        self.configs: Mapping[PoolKey, PoolConfig] = {config.key: config for config in configs}
        self.has_builder = False
        self.left: list[PoolKey] = []
        self.pools = ServedPools(
            self,
            lambda *_: Silent(),
            clock=lambda: NOW,
            memory=ConnectionStore(None, now=NOW),
            told=lambda _: None,
            left=self.left.append,
        )
        for config in configs:
            self.pools.refresh(config.key)

    def builders(self, pool: PoolKey) -> tuple[Target, ...]:
        return (Target("ci-builder-0", "uid", "127.0.0.1:1"),) * self.has_builder

    def trouble(self, address: str) -> None:
        return None

    def loses(self, pool: PoolKey) -> None:
        """The pool is not served any more."""
        self.configs = {key: config for key, config in self.configs.items() if key != pool}
        self.pools.refresh(pool)


async def test_who_waits_is_counted_by_client() -> None:
    config = a_tenant(clients=CLIENTS)
    placement = Place(config)
    served = placement.pools.find(config.key)
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


async def test_of_a_pool_that_goes_while_somebody_waits_it_is_told_once_nobody_does(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Nothing else happens then which would have Envoy told that it is gone."""
    monkeypatch.setattr(module, "TICK", 0.01)
    config = a_tenant(clients=CLIENTS)
    placement = Place(config)
    served = placement.pools.find(config.key)
    assert served is not None
    waiting = asyncio.ensure_future(served.scheduler.admit("a", ANN, max_wait=LONG))
    await asyncio.sleep(0)
    running = asyncio.ensure_future(placement.pools.run())
    placement.loses(config.key)
    assert placement.left == [], "somebody waits who has not heard it yet"
    with pytest.raises(NotServed):
        await waiting
    async with asyncio.timeout(5):
        while not placement.left:  # noqa: ASYNC110 - a test's own look
            await asyncio.sleep(0.01)
    assert placement.left == [config.key]
    assert placement.pools.configs == {}
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_no_slot_is_given_before_the_daemons_were_heard() -> None:
    config = a_tenant(clients=CLIENTS)
    placement = Place(config)
    placement.has_builder = True
    placement.pools.listens(is_over=False)
    served = placement.pools.find(config.key)
    assert served is not None
    asked = asyncio.ensure_future(served.scheduler.admit("a", ANN, max_wait=LONG))
    await asyncio.sleep(0)
    assert served.waiting["ann"] == 1
    placement.pools.listens(is_over=True)
    async with asyncio.timeout(5):
        await asked
