"""The pools of a gateway, as they come and go."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import timedelta

import pytest

from buildpool.core.naming import PoolKey
from buildpool.core.routing.values import Builder, ClientBrief
from buildpool.gateway.pools import served as module
from buildpool.gateway.pools.config import Tenant
from buildpool.gateway.pools.served import House
from buildpool.gateway.slots.refusals import NotServed
from buildpool.gateway.slots.store import Memory
from daemons import Silent
from samples import NOW
from unit.gateway.xds.configs import a_tenant

ANN, BOB = "buildpool://ann", "buildpool://bob"
CLIENTS = (ClientBrief(identity=ANN, name="ann"), ClientBrief(identity=BOB, name="bob"))
LONG = timedelta(hours=1)


class Place:
    """A house whose cluster a test sets."""

    def __init__(self, *tenants: Tenant) -> None:
        self.tenants: Mapping[PoolKey, Tenant] = {tenant.key: tenant for tenant in tenants}
        self.has_builder = False
        self.left: list[PoolKey] = []
        self.house = House(
            self,
            lambda *_: Silent(),
            clock=lambda: NOW,
            memory=Memory(None, now=NOW),
            told=lambda _: None,
            left=self.left.append,
        )
        for tenant in tenants:
            self.house.refresh(tenant.key)

    def builders(self, pool: PoolKey) -> tuple[Builder, ...]:
        return (Builder("ci-builder-0", "uid", "127.0.0.1:1"),) * self.has_builder

    def trouble(self, address: str) -> None:
        return None

    def loses(self, pool: PoolKey) -> None:
        """The pool is not served any more."""
        self.tenants = {key: tenant for key, tenant in self.tenants.items() if key != pool}
        self.house.refresh(pool)


async def test_who_waits_is_counted_by_client() -> None:
    tenant = a_tenant(clients=CLIENTS)
    place = Place(tenant)
    room = place.house.room_of(tenant.key)
    assert room is not None
    asked = [
        asyncio.ensure_future(room.desk.admit("a", ANN, max_wait=LONG)),
        asyncio.ensure_future(room.desk.any_builder("b", ANN, max_wait=LONG)),
        asyncio.ensure_future(room.desk.admit("c", "somebody who was removed", max_wait=LONG)),
    ]
    await asyncio.sleep(0)
    assert room.waiting == {"ann": 2, "bob": 0}
    for each in asked:
        each.cancel()
    await asyncio.gather(*asked, return_exceptions=True)
    assert room.waiting == {"ann": 0, "bob": 0}


async def test_of_a_pool_that_goes_while_somebody_waits_it_is_told_once_nobody_does(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Nothing else happens then which would have Envoy told that it is gone."""
    monkeypatch.setattr(module, "TICK", 0.01)
    tenant = a_tenant(clients=CLIENTS)
    place = Place(tenant)
    room = place.house.room_of(tenant.key)
    assert room is not None
    waiting = asyncio.ensure_future(room.desk.admit("a", ANN, max_wait=LONG))
    await asyncio.sleep(0)
    running = asyncio.ensure_future(place.house.run())
    place.loses(tenant.key)
    assert place.left == [], "somebody waits who has not heard it yet"
    with pytest.raises(NotServed):
        await waiting
    async with asyncio.timeout(5):
        while not place.left:  # noqa: ASYNC110 - a test's own look
            await asyncio.sleep(0.01)
    assert place.left == [tenant.key]
    assert place.house.tenants == {}
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_no_slot_is_given_before_the_daemons_were_heard() -> None:
    tenant = a_tenant(clients=CLIENTS)
    place = Place(tenant)
    place.has_builder = True
    place.house.listens(is_over=False)
    room = place.house.room_of(tenant.key)
    assert room is not None
    asked = asyncio.ensure_future(room.desk.admit("a", ANN, max_wait=LONG))
    await asyncio.sleep(0)
    assert room.waiting["ann"] == 1
    place.house.listens(is_over=True)
    async with asyncio.timeout(5):
        await asked
