"""The metrics API is asked by a clock that is turned on."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import pairwise
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

import virtual_time
from buildpool.controller.memory_poller import (
    INTERVAL_SECONDS,
    LAST_RETRY_SECONDS,
    MAX_AGE_SECONDS,
    MemoryPoller,
)
from buildpool.core import naming
from buildpool.core.errors import UnavailableError
from buildpool.core.naming import PoolKey
from buildpool.kube.cluster import Cluster
from samples import any_json, any_object
from unit.controller.measured import Measured, measured

CI, OTHER, AWAY = PoolKey("builds", "ci"), PoolKey("builds", "other"), PoolKey("away", "ci")


@asynccontextmanager
async def polling(cluster: Measured) -> AsyncIterator[MemoryPoller]:
    poller = MemoryPoller(cast("Cluster", cluster), chance=lambda: 0.0)
    running = asyncio.create_task(poller.run())
    try:
        yield poller
        assert not running.done(), "it goes on for ever"
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


def test_each_namespace_is_asked_once_a_minute_however_many_pools_and_passes() -> None:
    async def story() -> None:
        cluster = Measured([measured("a", "1Ki")])
        async with polling(cluster) as poller:
            for _ in range(100):
                for pool in (CI, OTHER, AWAY):
                    poller.watch(pool)
                await asyncio.sleep(INTERVAL_SECONDS / 10)
            assert dict(poller.watch(CI)) == {"a": 1024}
        times = [time for time, namespace, _ in cluster.selected if namespace == "builds"]
        assert {after - before for before, after in pairwise(times)} == {INTERVAL_SECONDS}
        assert len(cluster.selected) == 2 * len(times)
        labels = naming.installation_selector("builder")
        assert all(selected == labels for _, _, selected in cluster.selected)

    virtual_time.run(story())


def test_a_new_namespace_is_asked_for_at_once() -> None:
    async def story() -> None:
        cluster = Measured()
        async with polling(cluster) as poller:
            poller.watch(CI)
            await asyncio.sleep(INTERVAL_SECONDS / 2)
            poller.watch(AWAY)
            await asyncio.sleep(0.1)
            assert [(t, n) for t, n, _ in cluster.selected] == [(0, "builds"), (30, "away")]

    virtual_time.run(story())


def test_nobody_asks_when_the_last_pool_of_a_namespace_is_forgotten() -> None:
    async def story() -> None:
        cluster = Measured()
        async with polling(cluster) as poller:
            for pool in (CI, OTHER):
                poller.watch(pool)
            poller.forget(CI)
            await asyncio.sleep(INTERVAL_SECONDS)
            asked = len(cluster.selected)
            assert asked > 0
            poller.forget(OTHER)
            poller.forget(AWAY)
            await asyncio.sleep(10 * INTERVAL_SECONDS)
            assert len(cluster.selected) == asked

    virtual_time.run(story())


@pytest.mark.parametrize(
    ("error", "takes", "told"),
    [
        (UnavailableError("the server is currently unable"), 0.0, "rests: the server is currently"),
        (None, 1e6, "rests: no answer within 2 s"),
        (KeyError("items"), 0.0, "rests: 'items'"),
    ],
    ids=["down", "silent", "odd"],
)
def test_an_api_that_fails_is_told_once_and_asked_with_growing_pauses(
    error: Exception | None, takes: float, told: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def story() -> None:
        cluster = Measured([measured("a", "1Ki")])
        async with polling(cluster) as poller:
            poller.watch(CI)
            await asyncio.sleep(1)
            cluster.error, cluster.takes = error, takes
            await asyncio.sleep(MAX_AGE_SECONDS - 2)
            assert poller.watch(CI), "the last answer is used"
            await asyncio.sleep(10)
            assert not poller.watch(CI), "but not for ever"
            await asyncio.sleep(10 * LAST_RETRY_SECONDS)
            gaps = [after - before for (before, *_), (after, *_) in pairwise(cluster.selected)]
            assert gaps[1] < INTERVAL_SECONDS + 3
            assert INTERVAL_SECONDS * 2 <= gaps[2] < INTERVAL_SECONDS * 2 + 3
            assert max(gaps) < LAST_RETRY_SECONDS + 3
            cluster.error, cluster.takes = None, 0.0
            await asyncio.sleep(LAST_RETRY_SECONDS)
            assert poller.watch(CI)

    virtual_time.run(story())
    (record,) = (record for record in caplog.records if record.levelno == logging.WARNING)
    assert told in record.getMessage()


def test_one_namespace_without_an_answer_costs_no_other() -> None:
    class Partly(Measured):
        async def select(self, kind: str, namespace: str, labels: dict[str, str]) -> list[Any]:
            self.takes = 1e6 if namespace == "away" else 0.0
            return await super().select(kind, namespace, labels)

    async def story() -> None:
        async with polling(Partly([measured("a", "1Ki")])) as poller:
            poller.watch(AWAY)
            poller.watch(CI)
            await asyncio.sleep(20 * INTERVAL_SECONDS)
            assert poller.watch(CI)

    virtual_time.run(story())


@given(st.lists(any_object | any_json, max_size=3))
def test_what_cannot_be_read_keeps_nothing_else_from_being_read(odd: list[Any]) -> None:
    async def story() -> None:
        async with polling(Measured([*odd, measured("a", "1Ki")])) as poller:
            poller.watch(CI)
            await asyncio.sleep(1)
            assert poller.watch(CI)["a"] == 1024

    virtual_time.run(story())
