"""A pool's loop with a real event loop and short times; only the passes themselves are made up."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import cast

import pytest

import virtual_time
from buildpool.controller.loop import (
    FIRST_RETRY_SECONDS,
    LAST_RETRY_SECONDS,
    MIN_INTERVAL_SECONDS,
    PoolLoop,
    backoff,
    next_look,
)
from buildpool.controller.metrics import PoolMetrics
from buildpool.controller.reconcile import Reconciler
from buildpool.controller.secret_poller import SecretPoller
from buildpool.controller.wakeups import Wakeups
from buildpool.core.errors import UnavailableError
from buildpool.core.naming import PoolKey
from buildpool.core.objects.refs import Ref
from buildpool.core.planning.plan import RESYNC
from buildpool.kube.cluster import Cluster

CI, OTHER = PoolKey("builds", "ci"), PoolKey("builds", "other")
FOREVER = timedelta(hours=1)
GONE = None


@dataclass
class Passes:
    """Stands for a reconciler: answers as scripted, the last answer for ever."""

    answers: list[timedelta | Exception | None]
    on_pass: Callable[[], None] = lambda: None
    takes: float = 0.0
    started: list[float] = field(default_factory=list)
    running: int = 0
    most_running: int = 0
    news: asyncio.Event = field(default_factory=asyncio.Event)

    async def reconcile(self, key: PoolKey) -> timedelta | None:
        self.started.append(asyncio.get_running_loop().time())
        self.news.set()
        self.running += 1
        self.most_running = max(self.most_running, self.running)
        self.on_pass()
        await asyncio.sleep(self.takes)
        self.running -= 1
        answer = self.answers[min(len(self.started), len(self.answers)) - 1]
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def reach(self, count: int) -> None:
        async with asyncio.timeout(20):
            while len(self.started) < count:
                self.news.clear()
                await self.news.wait()


class Nowhere:
    """A cluster that nobody asks for anything."""

    async def get(self, ref: Ref) -> None:
        raise AssertionError(f"{ref} was looked at")


class Tended:
    """Pools being tended."""

    def __init__(
        self,
        passes: Passes,
        *,
        max_passes: int = 8,
        chance: Callable[[], float] = lambda: 0.0,
    ) -> None:
        self.passes = passes
        self.wakeups = Wakeups()
        self.metrics = PoolMetrics()
        sentinel = SecretPoller(cast("Cluster", Nowhere()), self.wakeups, reads_per_second=10)
        self.tender = PoolLoop(
            cast("Reconciler", passes),
            self.wakeups,
            (sentinel,),
            self.metrics,
            max_passes=max_passes,
            chance=chance,
        )

    def appear(self) -> None:
        """What the event of a new pool does."""
        self.tender.start(CI)
        if len(self.passes.started) < 3:
            self.wakeups.wake(CI)

    async def tend(self, *pools: PoolKey) -> None:
        """Until nobody is tended any more."""
        for pool in pools or (CI,):
            self.tender.start(pool)
        async with asyncio.timeout(20):
            while tasks := loops():
                await asyncio.wait(tasks)


def loops() -> set[asyncio.Task[object]]:
    """Those that run now."""
    return {task for task in asyncio.all_tasks() if task.get_name().startswith("tending")}


@asynccontextmanager
async def tending(passes: Passes) -> AsyncIterator[Tended]:
    """A pool that is tended during a block."""
    tended = Tended(passes)
    tended.tender.start(CI)
    try:
        yield tended
    finally:
        await tended.tender.end()


def passes_counted(metrics: PoolMetrics, result: str) -> float | None:
    labels = {"namespace": "builds", "pool": "ci", "result": result}
    return metrics.registry.get_sample_value("buildpool_passes_total", labels)


async def test_a_pool_that_is_gone_is_tended_no_more() -> None:
    tended = Tended(Passes([GONE]))
    await tended.tend()
    assert len(tended.passes.started) == 1


async def test_what_is_known_of_a_pool_goes_with_it() -> None:
    tended = Tended(Passes([GONE]))
    await tended.tend()
    assert passes_counted(tended.metrics, "done") is None


async def test_a_namesake_that_came_while_a_pass_saw_none_is_tended() -> None:
    tended: list[Tended] = []
    passes = Passes([GONE, FOREVER], on_pass=lambda: tended[0].appear())
    async with tending(passes) as found:
        tended.append(found)
        await passes.reach(3)


async def test_a_pool_has_one_loop_however_often_it_is_asked_for() -> None:
    async with tending(Passes([FOREVER], takes=0.01)) as tended:
        for _ in range(10):
            tended.tender.start(CI)
            await asyncio.sleep(0)
        await tended.passes.reach(1)
        assert len(loops()) == 1
    assert tended.passes.most_running == 1


async def test_a_pass_is_repeated_when_the_last_one_asked_for_it() -> None:
    async with tending(Passes([timedelta(seconds=0.25), FOREVER])) as tended:
        await tended.passes.reach(2)
        first, second = tended.passes.started
        assert second - first >= 0.25


async def test_a_wake_up_does_not_wait_for_the_next_look() -> None:
    async with tending(Passes([FOREVER])) as tended:
        await tended.passes.reach(1)
        tended.wakeups.wake(CI)
        await tended.passes.reach(2)


async def test_a_wake_up_during_a_pass_is_not_lost() -> None:
    async with tending(Passes([FOREVER], takes=0.05)) as tended:
        await tended.passes.reach(1)
        tended.wakeups.wake(CI)
        await tended.passes.reach(2)


async def test_a_burst_of_wake_ups_is_one_pass() -> None:
    async with tending(Passes([FOREVER])) as tended:
        await tended.passes.reach(1)
        for _ in range(100):
            tended.wakeups.wake(CI)
            await asyncio.sleep(0)
        await asyncio.sleep(3 * MIN_INTERVAL_SECONDS)
        assert len(tended.passes.started) == 2


async def test_two_passes_keep_their_distance_whatever_wakes_them() -> None:
    tended: list[Tended] = []
    passes = Passes([FOREVER], on_pass=lambda: tended[0].wakeups.wake(CI))
    async with tending(passes) as found:
        tended.append(found)
        await passes.reach(4)
    gaps = [b - a for a, b in zip(passes.started, passes.started[1:], strict=False)]
    assert min(gaps) > 0.9 * MIN_INTERVAL_SECONDS


async def test_the_passes_of_one_pool_never_overlap() -> None:
    passes = Passes([timedelta(0)], takes=0.05)
    async with tending(passes) as tended:
        tended.wakeups.wake(CI)
        await passes.reach(3)
    assert passes.most_running == 1


async def test_only_so_many_passes_run_at_once() -> None:
    passes = Passes([GONE], takes=0.02)
    tended = Tended(passes, max_passes=2)
    await tended.tend(*(PoolKey("builds", f"pool-{number}") for number in range(6)))
    assert len(passes.started) == 6
    assert passes.most_running == 2


async def test_a_failed_pass_is_repeated_and_told(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        async with tending(Passes([UnavailableError("etcd has no leader"), FOREVER])) as tended:
            await tended.passes.reach(2)
            await asyncio.sleep(0)
            assert passes_counted(tended.metrics, "failed") == 1
    first, second = tended.passes.started
    assert second - first >= backoff(1, chance=1.0)
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert record.exc_info is None
    assert "builds/ci: pass 1 in a row has failed" in record.getMessage()
    assert "etcd has no leader" in record.getMessage()


async def test_a_mistake_of_ours_ends_nothing_and_is_told_with_its_traceback(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.WARNING):
        async with tending(Passes([KeyError("oops"), FOREVER])) as tended:
            await tended.passes.reach(2)
    (record,) = caplog.records
    assert record.levelno == logging.ERROR
    assert record.exc_info is not None


async def test_a_wake_up_cuts_the_pause_after_a_failure_short() -> None:
    tended: list[Tended] = []
    passes = Passes([UnavailableError("no")], on_pass=lambda: tended[0].wakeups.wake(CI))
    async with tending(passes) as found:
        tended.append(found)
        await passes.reach(5)
    assert passes.started[4] - passes.started[3] < backoff(4, chance=1.0)


async def test_pauses_start_small_again_after_a_success(caplog: pytest.LogCaptureFixture) -> None:
    answers = [UnavailableError("no"), timedelta(0), UnavailableError("no"), FOREVER]
    with caplog.at_level(logging.WARNING):
        async with tending(Passes(answers)) as tended:
            await tended.passes.reach(4)
    messages = [record.getMessage() for record in caplog.records]
    assert ["pass 1 in a row" in message for message in messages] == [True, True]


async def test_an_operator_that_stops_makes_no_more_passes() -> None:
    async with tending(Passes([FOREVER])) as tended:
        await tended.passes.reach(1)
    tended.tender.start(OTHER)
    assert not loops()
    assert len(tended.passes.started) == 1


async def test_the_pass_that_runs_comes_to_its_end_and_those_that_wait_do_not_begin() -> None:
    tended = Tended(Passes([FOREVER], takes=0.05), max_passes=1)
    tended.tender.start(CI)
    tended.tender.start(OTHER)
    await tended.passes.reach(1)
    await tended.tender.end()
    assert tended.passes.running == 0
    assert len(tended.passes.started) == 1


async def test_a_pass_that_hangs_is_broken_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("buildpool.controller.loop.END_SECONDS", 0.05)
    tended = Tended(Passes([FOREVER], takes=1e9))
    tended.tender.start(CI)
    await tended.passes.reach(1)
    await tended.tender.end()
    assert not loops()


async def test_tending_can_be_broken_off() -> None:
    async with tending(Passes([FOREVER])) as tended:
        await tended.passes.reach(1)
    assert passes_counted(tended.metrics, "done") is None, "what is known of it goes"


PAUSES = {
    1: 0.5,
    2: 1.0,
    3: 2.0,
    4: 4.0,
    5: 8.0,
    6: 16.0,
    7: LAST_RETRY_SECONDS,
    10_000: LAST_RETRY_SECONDS,
}


@pytest.mark.parametrize(("failures", "seconds"), PAUSES.items())
def test_the_pauses_after_failures_grow_to_a_limit(failures: int, seconds: float) -> None:
    assert backoff(failures, chance=0.0) == seconds
    assert backoff(failures, chance=1.0) == 0.8 * seconds


def test_pools_that_were_made_together_do_not_look_again_together() -> None:
    looks = {next_look(RESYNC, chance=chance / 10) for chance in range(10)}
    assert len(looks) == 10
    assert max(looks) == RESYNC.total_seconds()
    assert min(looks) > 0.8 * RESYNC.total_seconds()


def test_pools_that_end_their_passes_together_do_not_come_again_together() -> None:
    passes = Passes([RESYNC])

    async def story() -> None:
        chances = iter([0.0, 1.0])
        tended = Tended(passes, chance=lambda: next(chances, 0.0))
        tended.tender.start(CI)
        tended.tender.start(OTHER)
        await asyncio.sleep(RESYNC.total_seconds() + 1)
        await tended.tender.end()

    virtual_time.run(story())
    _, _, early, late = passes.started
    assert late - early == pytest.approx(0.2 * RESYNC.total_seconds(), abs=1)


def test_what_is_due_at_a_moment_is_looked_at_then() -> None:
    assert next_look(timedelta(seconds=7), chance=0.9) == 7.0


def test_pools_that_fail_together_do_not_come_again_together() -> None:
    passes = Passes([UnavailableError("no"), UnavailableError("no"), FOREVER])

    async def story() -> None:
        chances = iter([0.0, 0.0, 1.0, 0.0])
        tended = Tended(passes, chance=lambda: next(chances, 0.0))
        tended.tender.start(CI)
        tended.tender.start(OTHER)
        await passes.reach(4)
        await tended.tender.end()

    virtual_time.run(story())
    assert passes.started[3] - passes.started[2] > 0.1 * FIRST_RETRY_SECONDS
