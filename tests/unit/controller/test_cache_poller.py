"""Registries are asked by a clock that is turned on; what they answer is made up."""

from __future__ import annotations

import asyncio
import itertools
import logging
import random
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

import pytest

import virtual_time
from buildpool.controller.cache_poller import (
    AT_ONCE,
    EXTERNAL_SECONDS,
    MANAGED_SECONDS,
    TROUBLED_AT_ONCE,
    TROUBLED_SECONDS,
    WRITTEN_SECONDS,
    CachePoller,
)
from buildpool.controller.wakeups import Wakeups
from buildpool.core.api import Reason
from buildpool.core.naming import PoolKey
from buildpool.core.observed.cache import CacheReport, CacheTarget
from buildpool.core.observed.usage import Usage
from buildpool.core.words import Finding

CI = PoolKey("builds", "ci")
TARGET = CacheTarget(host="r.example")
OTHER = CacheTarget(host="other.example")
OURS = CacheTarget(host="ours", keeper="ours:5001")
FINE = CacheReport()
DOWN = CacheReport(trouble=Finding(Reason.REGISTRY_UNREACHABLE, "nobody answers"))
BLACK_HOLE = 10.0
"""Seconds that a look takes where nobody answers."""
HOUR = 3600.0


@dataclass
class Registries:
    """Answer as they are told, and remember who was asked, when, and whether it was written to."""

    answer: Callable[[CacheTarget], CacheReport | Exception] = lambda _: FINE
    takes: Callable[[CacheTarget], float] = lambda _: 0.05
    asked: list[tuple[float, CacheTarget, bool]] = field(default_factory=list)
    running: int = 0
    most_running: int = 0

    async def inspect(self, target: CacheTarget, *, write: bool) -> CacheReport:
        self.asked.append((asyncio.get_running_loop().time(), target, write))
        self.running += 1
        self.most_running = max(self.most_running, self.running)
        try:
            await asyncio.sleep(self.takes(target))
        finally:
            self.running -= 1
        answer = self.answer(target)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def times(self, target: CacheTarget = TARGET) -> list[float]:
        return [time for time, asked, _ in self.asked if asked == target]


@asynccontextmanager
async def polling(
    registries: Registries, *, chance: Callable[[], float] = lambda: 0.0
) -> AsyncIterator[tuple[CachePoller, asyncio.Event]]:
    """A poller that runs during a block, and the flag of the pool CI."""
    wakeups = Wakeups()
    flag, poller = wakeups.open(CI), CachePoller(registries.inspect, wakeups, chance=chance)
    running = asyncio.create_task(poller.run())
    try:
        yield poller, flag
    finally:
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running
        assert len(asyncio.all_tasks()) == 1, "it leaves nobody behind"


def test_a_pool_is_woken_when_its_cache_has_answered() -> None:
    async def story() -> None:
        answer = CacheReport(usage=Usage(refs=3))
        async with polling(Registries(lambda _: answer)) as (poller, flag):
            assert poller.report(CI) is None
            poller.watch(CI, TARGET)
            await flag.wait()
            assert poller.report(CI) == answer

    virtual_time.run(story())


def test_the_same_answer_wakes_nobody_and_another_one_does() -> None:
    async def story() -> None:
        registries = Registries(lambda _: DOWN)
        async with polling(registries) as (poller, flag):
            poller.watch(CI, TARGET)
            await flag.wait()
            flag.clear()
            await asyncio.sleep(10 * TROUBLED_SECONDS)
            assert len(registries.asked) > 2
            assert not flag.is_set()
            registries.answer = lambda _: FINE
            await flag.wait()
            assert poller.report(CI) == FINE

    virtual_time.run(story())


def test_another_registry_is_asked_at_once_and_the_old_answer_forgotten() -> None:
    async def story() -> None:
        registries = Registries()
        async with polling(registries) as (poller, flag):
            poller.watch(CI, TARGET)
            await flag.wait()
            flag.clear()
            poller.watch(CI, TARGET)
            poller.watch(CI, OTHER)
            assert poller.report(CI) is None
            await flag.wait()
            assert [target for _, target, _ in registries.asked] == [TARGET, OTHER]

    virtual_time.run(story())


def test_a_cache_that_nobody_wants_any_more_is_not_asked() -> None:
    async def story() -> None:
        registries = Registries(lambda _: DOWN)
        async with polling(registries) as (poller, flag):
            poller.watch(CI, TARGET)
            await flag.wait()
            poller.watch(CI, None)
            asked = len(registries.asked)
            await asyncio.sleep(HOUR)
            assert len(registries.asked) == asked
            assert poller.report(CI) is None

    virtual_time.run(story())


@pytest.mark.parametrize("moment", [0.0, 0.02])
def test_a_pool_that_is_forgotten_before_or_during_its_look_ends_nothing(moment: float) -> None:
    async def story() -> None:
        async with polling(Registries()) as (poller, flag):
            poller.watch(PoolKey("builds", "gone"), OTHER)
            await asyncio.sleep(moment)
            poller.forget(PoolKey("builds", "gone"))
            poller.watch(CI, TARGET)
            await flag.wait()

    virtual_time.run(story())


def test_an_answer_that_comes_too_late_is_not_that_of_another_registry() -> None:
    class Stubborn(Registries):
        """Answers though nobody wants to know any more."""

        async def inspect(self, target: CacheTarget, *, write: bool) -> CacheReport:
            with suppress(asyncio.CancelledError):
                return await super().inspect(target, write=write)
            return DOWN

    async def story() -> None:
        wakeups = Wakeups()
        registries = Stubborn(takes=lambda target: HOUR if target == OTHER else 0.1)
        poller = CachePoller(registries.inspect, wakeups)
        poller.watch(CI, OTHER)
        await asyncio.sleep(1)
        poller.watch(CI, TARGET)
        await asyncio.sleep(1)
        assert poller.report(CI) == FINE
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()

    virtual_time.run(story())


def test_a_pool_that_is_watched_when_the_end_has_come_is_not_asked() -> None:
    async def story() -> None:
        registries = Registries()
        async with polling(registries) as (poller, _):
            await asyncio.sleep(0)
        poller.watch(CI, TARGET)
        await asyncio.sleep(1)
        assert registries.asked == []

    virtual_time.run(story())


WRITES = {
    "a healthy one": (TARGET, FINE, lambda time: time % WRITTEN_SECONDS < EXTERNAL_SECONDS),
    "a troubled one": (TARGET, DOWN, lambda _: True),
    "a managed one": (OURS, DOWN, lambda _: False),
}


@pytest.mark.parametrize(("target", "report", "is_due"), WRITES.values(), ids=WRITES.keys())
def test_a_registry_is_seldom_written_to(
    target: CacheTarget, report: CacheReport, is_due: Callable[[float], bool]
) -> None:
    async def story() -> None:
        registries = Registries(lambda _: report, takes=lambda _: 0.0)
        async with polling(registries) as (poller, _):
            poller.watch(CI, target)
            await asyncio.sleep(WRITTEN_SECONDS * 2 - 1)
        assert len(registries.asked) > 15
        assert all(write is is_due(time) for time, _, write in registries.asked)

    virtual_time.run(story())


# --- every pool for itself -----------------------------------------------------------------------


@pytest.mark.parametrize(
    "error",
    [
        UnicodeError("label empty or too long"),
        IndexError("string index out of range"),
        ExceptionGroup("unhandled errors in a TaskGroup", [KeyError("x")]),
    ],
    ids=lambda error: type(error).__name__,
)
def test_a_look_that_fails_is_its_own_pools_trouble_and_is_logged_once(
    error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    cause = error.exceptions[0] if isinstance(error, ExceptionGroup) else error

    async def story() -> None:
        registries = Registries(lambda target: error if target == OTHER else FINE)
        async with polling(registries) as (poller, flag):
            poller.watch(PoolKey("builds", "odd"), OTHER)
            poller.watch(CI, TARGET)
            await flag.wait()
            await asyncio.sleep(HOUR)
            trouble = (poller.report(PoolKey("builds", "odd")) or FINE).trouble
            assert trouble is not None
            assert trouble.reason is Reason.REGISTRY_UNREACHABLE
            assert f"could not ask other.example: {type(cause).__name__};" in trouble.message
            assert len(registries.times(OTHER)) > 50
            assert len(registries.times()) >= 60

    virtual_time.run(story())
    (record,) = (record for record in caplog.records if record.levelno == logging.ERROR)
    assert record.exc_info


def test_a_registry_in_trouble_is_asked_with_growing_pauses_and_soon_when_it_recovers() -> None:
    async def story() -> None:
        registries = Registries(lambda _: DOWN, takes=lambda _: 0.0)
        async with polling(registries) as (poller, _):
            poller.watch(CI, TARGET)
            await asyncio.sleep(200)
            registries.answer = lambda _: FINE
            await asyncio.sleep(EXTERNAL_SECONDS)
            registries.answer = lambda _: DOWN
            await asyncio.sleep(EXTERNAL_SECONDS + TROUBLED_SECONDS)
        times = registries.times()
        gaps = [after - before for before, after in itertools.pairwise(times)]
        assert gaps[:6] == [5, 10, 20, 40, 60, 60]
        assert gaps[-1] == TROUBLED_SECONDS

    virtual_time.run(story())


def test_pauses_are_spread_so_that_what_failed_together_is_not_asked_together() -> None:
    async def story() -> None:
        registries = Registries(lambda _: DOWN, takes=lambda _: 0.0)
        async with polling(registries, chance=random.Random(7).random) as (poller, _):
            for number in range(10):
                poller.watch(PoolKey("builds", str(number)), CacheTarget(f"r{number}"))
            await asyncio.sleep(TROUBLED_SECONDS)
        second = [time for time, _, _ in registries.asked if time > 0]
        assert len(set(second)) == 10
        assert min(second) >= 0.8 * TROUBLED_SECONDS

    virtual_time.run(story())


@pytest.mark.parametrize(("target", "pause"), [(OURS, MANAGED_SECONDS), (TARGET, EXTERNAL_SECONDS)])
def test_a_thousand_caches_are_all_asked_in_their_time(target: CacheTarget, pause: float) -> None:
    async def story() -> None:
        registries = Registries()
        pools = {PoolKey("builds", str(number)): f"r{number}" for number in range(1000)}
        async with polling(registries) as (poller, _):
            for pool, host in pools.items():
                poller.watch(pool, CacheTarget(host, keeper=target.keeper))
            await asyncio.sleep(10 * pause)
        asked = Counter(target.host for _, target, _ in registries.asked)
        assert set(asked) == set(pools.values())
        assert min(asked.values()) >= 8
        assert registries.most_running == AT_ONCE

    virtual_time.run(story())


@pytest.mark.parametrize("holes", [40, 400])
def test_registries_that_swallow_all_questions_starve_nobody(holes: int) -> None:
    def is_hole(target: CacheTarget) -> bool:
        return target.host.startswith("hole")

    async def story() -> None:
        registries = Registries(
            lambda target: DOWN if is_hole(target) else FINE,
            lambda target: BLACK_HOLE if is_hole(target) else 0.05,
        )
        async with polling(registries) as (poller, _):
            for number in range(holes):
                host = f"hole{number}"
                poller.watch(PoolKey("theirs", host), CacheTarget(host))
            for number in range(10):
                poller.watch(PoolKey("builds", str(number)), CacheTarget(f"r{number}"))
            await asyncio.sleep(HOUR)
        for number in range(10):
            times = registries.times(CacheTarget(f"r{number}"))
            assert times[0] <= BLACK_HOLE * (holes // AT_ONCE + 1)
            gaps = [after - before for before, after in itertools.pairwise(times)]
            assert max(gaps) < EXTERNAL_SECONDS + 1
        fewest = min(len(registries.times(CacheTarget(f"hole{n}"))) for n in range(holes))
        turn = max(EXTERNAL_SECONDS + BLACK_HOLE, holes * BLACK_HOLE / TROUBLED_AT_ONCE)
        assert fewest > 0.5 * HOUR / turn

    virtual_time.run(story())
