"""Between passes: who waits for a turn is woken when one is free, and a restart changes nothing."""

from __future__ import annotations

from collections.abc import Iterable
from copy import deepcopy
from dataclasses import replace
from datetime import datetime, timedelta
from functools import cache

from hypothesis import given, settings
from hypothesis import strategies as st

from buildpool.controller.rollout_turns import RolloutTurns
from buildpool.controller.wakeups import Wakeups
from buildpool.core.api import Pool
from buildpool.core.naming import Installation
from buildpool.core.planning.turns import waiting_since
from memory_cluster import MemoryCluster, settled
from samples import INSTALLATION, NOW, a_pool, a_raw_pool

CACHE = {"registry": {"managed": {}}}


def upgraded(name: str) -> tuple[Pool, MemoryCluster]:
    """A settled pool whose guards are to run another image."""
    pool = a_pool(name=name, cache=CACHE)
    cluster = settled(pool)
    cluster.installation = INSTALLATION._replace(image="r.example/buildpool:newer")
    return pool, cluster


def step(turns: RolloutTurns, pool: Pool, cluster: MemoryCluster) -> bool:
    """One pass, as the reconciler makes it; whether the pool may roll."""
    cluster.may_roll = turns.told(cluster.situation(pool)).may_roll
    cluster.step(pool)
    return cluster.may_roll


def test_who_waits_is_woken_when_the_one_before_has_finished() -> None:
    wakeups = Wakeups()
    turns = RolloutTurns(wakeups, limit=1)
    (a, first), (b, second) = upgraded("a"), upgraded("b")
    flag = wakeups.open(b.key)
    assert step(turns, a, first)
    assert not step(turns, b, second)
    steps = 0
    while not flag.is_set():
        step(turns, a, first)
        steps += 1
        assert steps < 20
    assert not first.situation(a).outdated
    assert step(turns, b, second)


def test_a_pool_that_is_gone_keeps_nobody_waiting() -> None:
    wakeups = Wakeups()
    turns = RolloutTurns(wakeups, limit=1)
    (a, first), (b, second) = upgraded("a"), upgraded("b")
    flag = wakeups.open(b.key)
    step(turns, a, first)
    assert not step(turns, b, second)
    turns.forget(a.key)
    assert flag.is_set()
    assert step(turns, b, second)


def test_a_change_of_the_spec_goes_past_all_that_wait() -> None:
    turns = RolloutTurns(Wakeups(), limit=1)
    (a, first), (b, second) = upgraded("a"), upgraded("b")
    step(turns, a, first)
    assert not step(turns, b, second)
    changed = replace(b, generation=b.generation + 1)
    assert step(turns, changed, second)
    assert second.situation(changed).deployments.keys() == {0, 1}


def test_an_operator_that_begins_knows_who_waits_and_who_is_next() -> None:
    (a, first), (b, second), (c, third) = fleet = [upgraded(name) for name in "abc"]
    turns = RolloutTurns(Wakeups(), limit=1)
    assert step(turns, a, first)
    third.now += timedelta(hours=2)
    assert not step(turns, b, second)
    assert not step(turns, c, third)
    turns = RolloutTurns(Wakeups(), limit=1, clock=lambda: third.now)
    turns.resume(a_raw_pool(name=pool.key.name, status=cluster.status) for pool, cluster in fleet)
    assert not step(turns, c, third), "it is looked at first, and another one still rolls"
    turns.forget(a.key)
    assert not step(turns, c, third), "the other one has waited longer"
    assert step(turns, b, second)


SPEC = {
    "cache": CACHE,
    "scaling": {"min": 2, "max": 3},
    "builders": {"recycle": {"maxBuilds": 100}},
}


@cache
def first_version(name: str) -> tuple[Pool, MemoryCluster]:
    """A pool as the first version of the operator has left it."""
    pool, cluster = a_pool(name=name, **SPEC), MemoryCluster(installation=image_of(0))
    cluster.settle(pool)
    return pool, cluster


def image_of(version: int) -> Installation:
    return INSTALLATION._replace(image=f"r.example/buildpool:{version}")


class Fleet:
    """Pools and their operator, of which each can become another one."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.now: datetime = NOW + timedelta(minutes=5)
        self.version = 0
        self.pools: dict[str, tuple[Pool, MemoryCluster]] = {}
        self.ours: set[str] = set()
        """The pools that have begun by our doing."""
        for name in ("a", "b", "c", "d"):
            self.comes(name)
        self.restart()

    def comes(self, name: str) -> None:
        """A pool that another operator has tended until now."""
        self.pools[name] = deepcopy(first_version(name))

    def restart(self) -> None:
        """Another process, which knows what the cluster says."""
        self.turns = RolloutTurns(Wakeups(), limit=self.limit, clock=lambda: self.now)
        self.turns.resume(
            a_raw_pool(name=name, status=cluster.status)
            for name, (_, cluster) in self.pools.items()
        )

    def happens(self, what: str, name: str) -> None:
        if what == "upgrade":
            self.version += 1
            self.restart()
        elif what == "restart":
            self.restart()
        elif name not in self.pools:
            self.comes(name)
        elif what == "goes":
            pool, _ = self.pools.pop(name)
            self.ours.discard(name)
            self.turns.forget(pool.key)
        else:
            getattr(self, what)(name)

    def looks(self, name: str) -> None:
        """A pass over one pool."""
        pool, cluster = self.pools[name]
        cluster.now, cluster.installation = self.now, image_of(self.version)
        s = self.turns.told(cluster.situation(pool))
        if s.is_changed_by_us and s.may_roll:
            self.ours.add(name)
            since = waited(cluster) or self.now
            longer = [
                other
                for other, (_, there) in self.pools.items()
                if other not in self.ours and (waited(there) or since) < since
            ]
            assert len(self.ours) + len(longer) <= self.limit, (name, self.ours, longer)
        cluster.may_roll = s.may_roll
        cluster.step(pool)
        self.now = cluster.now
        if not cluster.situation(pool).outdated:
            self.ours.discard(name)

    def changes(self, name: str) -> None:
        """Its user wants something else of its builders."""
        pool, cluster = self.pools[name]
        generation = pool.generation + 1
        env = {"env": [{"name": "CHANGE", "value": f"{generation}"}]}
        spec = {**SPEC, "builders": {**SPEC["builders"], **env}}
        changed = a_pool(name=name, generation=generation, **spec)
        self.pools[name] = (changed, cluster)

    def recycles(self, name: str) -> None:
        """Its oldest builder has served enough builds."""
        _, cluster = self.pools[name]
        cluster.served[cluster.names("Deployment")[0]] = 100

    def fills(self, name: str) -> None:
        """Builds fill it, and no node takes what it grows by."""
        _, cluster = self.pools[name]
        there = [each for each in cluster.names("Deployment") if "-builder-" in each]
        cluster.builds |= dict.fromkeys(there, 2)
        cluster.full = {f"{name}-builder-{number}" for number in range(12)} - {*there}

    def empties(self, name: str) -> None:
        """Its builds end, and nodes come."""
        _, cluster = self.pools[name]
        cluster.builds.clear()
        cluster.full.clear()


def waited(cluster: MemoryCluster) -> datetime | None:
    return cluster.status and waiting_since(cluster.status)


HISTORIES = st.lists(
    st.tuples(
        st.sampled_from(
            ["looks"] * 6
            + ["upgrade", "restart", "goes", "changes", "recycles", "fills", "empties"]
        ),
        st.sampled_from("abcd"),
    ),
    max_size=15,
)


@settings(max_examples=12, deadline=None)
@given(HISTORIES, st.integers(1, 3))
def test_whatever_happens_pools_roll_in_turns_and_in_order_and_none_starves(
    history: Iterable[tuple[str, str]], limit: int
) -> None:
    fleet = Fleet(limit)
    for what, name in (("upgrade", "a"), *history):
        fleet.happens(what, name)
    for name in fleet.pools:
        fleet.empties(name)
    rounds = 0
    while any(cluster.situation(pool).outdated for pool, cluster in fleet.pools.values()):
        for name in fleet.pools:
            fleet.looks(name)
        rounds += 1
        assert rounds < 40, "somebody starves"
    assert not fleet.ours
