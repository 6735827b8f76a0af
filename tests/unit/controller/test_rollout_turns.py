"""Between passes: who waits for a turn is woken when one is free."""

from __future__ import annotations

from dataclasses import replace

from buildpool.controller.rollout_turns import RolloutTurns
from buildpool.controller.wakeups import Wakeups
from buildpool.core.api import Pool
from memory_cluster import MemoryCluster, settled
from samples import INSTALLATION, a_pool

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
