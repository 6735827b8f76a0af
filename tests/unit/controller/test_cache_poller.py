from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import pytest

from buildpool.controller import cache_poller as module
from buildpool.controller.cache_poller import CachePoller
from buildpool.controller.wakeups import Wakeups
from buildpool.core.api import Reason
from buildpool.core.naming import PoolKey
from buildpool.core.observed.cache import CacheReport, CacheTarget
from buildpool.core.observed.usage import Usage
from buildpool.core.words import Finding

CI = PoolKey("builds", "ci")
TARGET = CacheTarget(host="r.example")
DOWN = CacheReport(trouble=Finding(Reason.REGISTRY_UNREACHABLE, "nobody answers"))


class Registry:
    """Answers as it is told, and counts how often it is asked."""

    def __init__(self, report: CacheReport) -> None:
        self.report = report
        self.asked: list[CacheTarget] = []
        self.writes: list[bool] = []
        self.asked_again = asyncio.Condition()

    async def inspect(self, target: CacheTarget, *, write: bool) -> CacheReport:
        self.asked.append(target)
        self.writes.append(write)
        async with self.asked_again:
            self.asked_again.notify_all()
        return self.report

    async def asked_times(self, number: int) -> None:
        """Waits until it was asked so often."""
        async with self.asked_again:
            await self.asked_again.wait_for(lambda: len(self.asked) >= number)


@asynccontextmanager
async def inspecting(registry: Registry) -> AsyncIterator[tuple[CachePoller, asyncio.Event]]:
    wakeups = Wakeups()
    flag, inspector = wakeups.open(CI), CachePoller(registry.inspect, wakeups)
    running = asyncio.create_task(inspector.run())
    try:
        async with asyncio.timeout(10):
            yield inspector, flag
    finally:
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running


def test_a_pool_is_woken_when_its_cache_has_answered() -> None:
    async def story() -> None:
        async with inspecting(Registry(CacheReport(usage=Usage(refs=3)))) as (inspector, flag):
            assert inspector.report(CI) is None
            inspector.watch(CI, TARGET)
            await flag.wait()
            assert inspector.report(CI) == CacheReport(usage=Usage(refs=3))

    asyncio.run(story())


def test_the_same_answer_wakes_nobody_and_another_one_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "TROUBLED", 0.02)
    monkeypatch.setattr(module, "TICK", 0.01)

    async def story() -> None:
        registry = Registry(DOWN)
        async with inspecting(registry) as (inspector, flag):
            inspector.watch(CI, TARGET)
            await flag.wait()
            flag.clear()
            await registry.asked_times(3)
            assert not flag.is_set()
            registry.report = CacheReport()
            await flag.wait()
            assert inspector.report(CI) == CacheReport()

    asyncio.run(story())


def test_another_registry_is_asked_at_once_and_the_old_answer_forgotten() -> None:
    async def story() -> None:
        registry = Registry(CacheReport())
        async with inspecting(registry) as (inspector, flag):
            inspector.watch(CI, TARGET)
            await flag.wait()
            flag.clear()
            other = CacheTarget(host="other.example")
            inspector.watch(CI, other)
            assert inspector.report(CI) is None
            await flag.wait()
            assert registry.asked == [TARGET, other]

    asyncio.run(story())


def test_a_cache_that_nobody_wants_any_more_is_not_asked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "TROUBLED", 0.02)
    monkeypatch.setattr(module, "TICK", 0.01)

    async def story() -> None:
        registry = Registry(DOWN)
        async with inspecting(registry) as (inspector, flag):
            inspector.watch(CI, TARGET)
            await flag.wait()
            inspector.watch(CI, None)
            asked = len(registry.asked)
            await asyncio.sleep(0.1)
            assert len(registry.asked) == asked
            assert inspector.report(CI) is None

    asyncio.run(story())


@pytest.mark.parametrize(
    ("target", "report", "writes"),
    [
        (TARGET, CacheReport(), [True, False, False]),
        (TARGET, DOWN, [True, True, True]),
        (CacheTarget(host="ours", keeper="ours:5001"), DOWN, [False, False, False]),
    ],
    ids=["a healthy one", "a troubled one", "a managed one"],
)
def test_a_registry_is_seldom_written_to(
    monkeypatch: pytest.MonkeyPatch,
    target: CacheTarget,
    report: CacheReport,
    writes: list[bool],
) -> None:
    for name in ("TROUBLED", "EXTERNAL", "MANAGED", "TICK"):
        monkeypatch.setattr(module, name, 0.01)

    async def story() -> None:
        registry = Registry(report)
        async with inspecting(registry) as (inspector, _):
            inspector.watch(CI, target)
            await registry.asked_times(3)
            assert registry.writes[:3] == writes

    asyncio.run(story())
