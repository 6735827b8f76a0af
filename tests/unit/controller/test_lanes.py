"""Slow passes make way for quick ones, and their number is bounded, too."""

from __future__ import annotations

import asyncio

from buildpool.controller.lanes import Lanes
from buildpool.core.naming import PoolKey

LONG = 60.0


def key(name: str) -> PoolKey:
    return PoolKey("builds", name)


class Passes:
    """Passes in lanes that last until they are ended."""

    def __init__(self, width: int, patience: float) -> None:
        self.lanes = Lanes(width, patience=patience)
        self.running: set[str] = set()
        self._ends: dict[str, asyncio.Event] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}

    def begin(self, *names: str) -> None:
        for name in names:
            self._ends[name] = asyncio.Event()
            self._tasks[name] = asyncio.create_task(self._pass(name))

    async def end(self, *names: str) -> None:
        for name in names:
            self._ends[name].set()
            await self._tasks[name]

    async def run(self, *names: str) -> None:
        """Waits until these run."""
        async with asyncio.timeout(5):
            while not self.running >= set(names):  # noqa: ASYNC110 - it is about turns
                await asyncio.sleep(0)

    async def settle(self) -> None:
        for _ in range(20):
            await asyncio.sleep(0)

    async def _pass(self, name: str) -> None:
        async with self.lanes.slot(key(name)):
            self.running.add(name)
            await self._ends[name].wait()
            self.running.remove(name)


async def test_no_more_quick_passes_run_than_there_are_slots() -> None:
    passes = Passes(2, LONG)
    passes.begin("a", "b", "c")
    await passes.settle()
    assert passes.running == {"a", "b"}
    await passes.end("a")
    await passes.run("c")
    await passes.end("b", "c")


async def test_passes_that_hang_make_way() -> None:
    passes = Passes(2, 0.0)
    passes.begin("slow-1", "slow-2")
    await passes.run("slow-1", "slow-2")
    passes.begin("good")
    await passes.run("good")
    await passes.end("good", "slow-1", "slow-2")


async def test_however_many_hang_at_once_no_other_waits_for_one_to_end() -> None:
    """As where a webhook dies on which many pools depend."""
    passes = Passes(2, 0.0)
    slow = [f"slow-{number}" for number in range(9)]
    passes.begin(*slow)
    await passes.run(*slow)
    passes.begin("good")
    await passes.run("good")
    await passes.end("good", *slow)


async def test_pools_that_were_slow_are_bounded_among_themselves() -> None:
    passes = Passes(2, 0.0)
    slow = ["a", "b", "c"]
    passes.begin(*slow)
    await passes.run(*slow)
    await passes.end(*slow)
    passes.lanes._patience = LONG
    passes.begin(*slow)
    await passes.run("a", "b")
    await passes.settle()
    assert passes.running == {"a", "b"}
    await passes.end("a")
    await passes.run("c")
    await passes.end("b", "c")


async def test_a_good_pool_among_the_slow_ones_does_not_wait_for_those_that_hang() -> None:
    passes = Passes(1, 0.01)
    passes.begin("hangs", "was slow once")
    await passes.run("hangs", "was slow once")
    await asyncio.sleep(0.05)
    await passes.end("hangs", "was slow once")
    passes.begin("hangs")
    await passes.run("hangs")
    passes.begin("was slow once")
    await passes.run("was slow once")
    await passes.end("hangs", "was slow once")


async def test_a_pool_whose_pass_was_slow_waits_for_other_slow_ones_only() -> None:
    passes = Passes(1, 0.0)
    passes.begin("slow")
    await passes.run("slow")
    await passes.end("slow")
    passes.lanes._patience = LONG
    passes.begin("slow")
    await passes.run("slow")
    passes.begin("good")
    await passes.run("good")
    await passes.end("good", "slow")
    # It was quick this time, so it is one of the quick again.
    passes.begin("slow")
    await passes.run("slow")
    passes.begin("good")
    await passes.settle()
    assert passes.running == {"slow"}
    await passes.end("slow", "good")


async def test_a_pass_that_is_cancelled_gives_its_slot_back() -> None:
    passes = Passes(1, LONG)
    passes.begin("a")
    await passes.run("a")
    passes._tasks["a"].cancel()
    passes.running.clear()
    passes.begin("b")
    await passes.run("b")
    await passes.end("b")
