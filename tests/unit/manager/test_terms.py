"""Parts that run beside the passes, by a clock that is turned on."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise

import pytest

import virtual_time
from buildpool.controller.metrics import PoolMetrics
from buildpool.manager.assembly import Operator
from buildpool.manager.terms import (
    CALM_SECONDS,
    FIRST_RESTART_SECONDS,
    LAST_RESTART_SECONDS,
    kept_up,
    term,
)
from buildpool.settings import Settings
from memory_cluster import MemoryCluster
from samples import HOME


@dataclass
class Part:
    """Runs for so long each time, and then fails, or ends."""

    lasts: Callable[[int], float] = lambda _: 0.0
    error: Exception | None = field(default_factory=lambda: KeyError("labels"))
    started: list[float] = field(default_factory=list)

    async def run(self) -> None:
        self.started.append(asyncio.get_running_loop().time())
        await asyncio.sleep(self.lasts(len(self.started)))
        if self.error is not None:
            raise self.error

    def pauses(self, seconds: float) -> list[float]:
        """What lies between its starts while it is kept up for so long."""

        async def story() -> None:
            keeping = asyncio.create_task(kept_up(self, chance=lambda: 0.0))
            await asyncio.wait([keeping], timeout=seconds)
            assert not keeping.done(), "it goes on for ever"
            keeping.cancel()
            await asyncio.gather(keeping, return_exceptions=True)

        virtual_time.run(story())
        return [after - before for before, after in pairwise(self.started)]


@pytest.mark.parametrize("error", [KeyError("labels"), UnicodeError("label"), None])
def test_a_part_that_ends_is_started_again_with_growing_pauses(
    error: Exception | None, caplog: pytest.LogCaptureFixture
) -> None:
    pauses = Part(error=error).pauses(1000.0)
    assert pauses[:3] == [
        FIRST_RESTART_SECONDS,
        2 * FIRST_RESTART_SECONDS,
        4 * FIRST_RESTART_SECONDS,
    ]
    assert pauses[-1] == LAST_RESTART_SECONDS
    record = caplog.records[0]
    assert record.levelno == logging.ERROR
    assert "Part has ended and is started again in 1.0 s" in record.getMessage()
    assert bool(record.exc_info and record.exc_info[1]) is (error is not None)


def test_pauses_are_short_again_after_a_calm_time() -> None:
    part = Part(lasts=lambda start: CALM_SECONDS + 1 if start == 5 else 0.0)
    pauses = part.pauses(2 * CALM_SECONDS)
    assert pauses[4] == CALM_SECONDS + 1 + FIRST_RESTART_SECONDS
    assert pauses[5] == 2 * FIRST_RESTART_SECONDS


def test_a_part_that_is_to_end_ends() -> None:
    async def story() -> None:
        keeping = asyncio.create_task(kept_up(Part(lasts=lambda _: 1e6)))
        await asyncio.sleep(1)
        keeping.cancel()
        with pytest.raises(asyncio.CancelledError):
            await keeping

    virtual_time.run(story())


class Restless(Operator):
    """An operator of which every part fails as soon as it runs."""

    parts: tuple[Part, ...] = ()

    @property
    def rounds(self) -> tuple[Part, ...]:
        return self.parts


def test_a_term_goes_on_though_all_that_runs_beside_the_passes_fails() -> None:
    parts, cluster, metrics = (Part(), Part(error=None)), MemoryCluster().api, PoolMetrics()

    async def watch(_: Operator, stop: asyncio.Event, **__: object) -> None:
        await stop.wait()

    async def story() -> None:
        stop = asyncio.Event()
        operator = Restless(Settings(HOME, "one"), cluster, metrics)
        operator.parts = parts
        acting = asyncio.create_task(term(operator, cluster, metrics, stop, watch=watch))
        await asyncio.wait([acting], timeout=100 * LAST_RESTART_SECONDS)
        assert not acting.done()
        stop.set()
        await acting

    virtual_time.run(story())
    assert all(len(part.started) > 50 for part in parts), "each is started again"
