"""Builders that have served long enough: by age, by builds, by memory."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from buildpool.core.api import EventReason, Pool
from buildpool.core.planning.plan import MEASURED
from memory_cluster import MemoryCluster, settled
from plans import asked, removed, retired, turnover
from samples import a_pool, a_situation


def recycled(recycle: dict[str, Any]) -> tuple[Pool, MemoryCluster]:
    pool = a_pool(replicas=1, builders={"recycle": recycle})
    return pool, settled(pool)


REPLACED = [
    (["ci-builder-1"], [], []),
    ([], ["ci-builder-0"], []),
    ([], [], ["ci-builder-0"]),
]


def test_a_builder_of_a_certain_age_is_replaced() -> None:
    pool, cluster = recycled({"maxAge": "24h"})
    created_at = a_situation(pool, cluster.observe(pool)).members[0].builder.created
    early = asked(pool, cluster.observe(pool), created_at + timedelta(hours=23, minutes=59))
    assert early.is_empty
    assert early.recheck == timedelta(minutes=1)
    cluster.now = created_at + timedelta(hours=24)
    assert [turnover(todo) for todo in cluster.settle(pool)] == REPLACED


def test_a_builder_that_served_so_many_builds_is_replaced() -> None:
    pool, cluster = recycled({"maxBuilds": 100})
    cluster.served = {"ci-builder-0": 99}
    assert cluster.settle(pool) == []
    cluster.served = {"ci-builder-0": 100}
    assert [turnover(todo) for todo in cluster.settle(pool)] == REPLACED


def test_a_builder_that_takes_too_much_memory_is_replaced() -> None:
    pool, cluster = recycled({"maxMemory": "1Gi"})
    cluster.memory = {"ci-builder-0": 2**30}
    assert cluster.settle(pool) == []
    assert cluster.plan(pool).recheck == MEASURED
    cluster.memory = {"ci-builder-0": 2**30 + 1}
    assert [turnover(todo) for todo in cluster.settle(pool)] == REPLACED


def test_it_is_told_which_limit_a_builder_has_reached() -> None:
    pool, cluster = recycled({"maxAge": "24h", "maxBuilds": 100, "maxMemory": "1Gi"})
    cluster.served = {"ci-builder-0": 120}
    cluster.memory = {"ci-builder-0": 2**31}
    _, second, _ = cluster.settle(pool)
    (told,) = (mark.message for mark in second.mark if mark.reason is EventReason.RETIRED_BUILDER)
    assert told == (
        "retired Deployment builds/ci-builder-0 (TooManyBuilds): it has served 120 builds"
    )


def test_a_busy_builder_that_has_served_long_enough_finishes_its_builds() -> None:
    pool, cluster = recycled({"maxBuilds": 100})
    cluster.served, cluster.builds = {"ci-builder-0": 100}, {"ci-builder-0": 1}
    plans = cluster.settle(pool)
    assert [name for todo in plans for name in retired(todo)] == ["ci-builder-0"]
    assert not any(removed(todo) for todo in plans)
    cluster.builds = {}
    assert [removed(todo) for todo in cluster.settle(pool)] == [["ci-builder-0"]]


def test_builders_of_one_age_are_replaced_one_by_one() -> None:
    pool = a_pool(replicas=3, builders={"recycle": {"maxAge": "24h"}})
    cluster = settled(pool)
    cluster.now += timedelta(hours=24)
    plans = cluster.settle(pool)
    assert max(len(retired(todo)) for todo in plans) == 1
    assert sum(len(removed(todo)) for todo in plans) == 3
