"""What it costs to know the builds of a thousand daemons, and how soon a pool is woken.

Prints a table and writes ``build/bench/loads.json``. The daemons are in a process of their own and
do not count, but they share the processors. Nothing is asserted of times: they are this machine's.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from bench.figures import report
from bench.pools.processes import cpu_seconds, resident_mib
from buildpool.buildkit import Daemon
from buildpool.buildkit.loads import Loads
from buildpool.controller.wakeups import Wakeups
from buildpool.core.naming import PoolKey
from daemons import a_server, an_access, an_authority, until

PROJECT = Path(__file__).parents[3]
DAEMONS = 1000
IDLE_SECONDS = 30.0
STORM_SECONDS = 20.0
STARTS_AND_ENDS_PER_SECOND = 50.0

Figures = dict[str, float]


class Times(Wakeups):
    """When which pool was woken."""

    def __init__(self) -> None:
        super().__init__()
        self.woken: dict[PoolKey, list[float]] = {}

    def wake(self, pool: PoolKey) -> None:
        self.woken.setdefault(pool, []).append(time.monotonic())


class Servers:
    """The other process."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process

    def tell(self, **message: object) -> None:
        assert self.process.stdin is not None
        print(json.dumps(message), file=self.process.stdin, flush=True)

    async def answer(self) -> Any:
        assert self.process.stdout is not None
        return json.loads(await asyncio.to_thread(self.process.stdout.readline))


@contextmanager
def a_process_of_servers() -> Iterator[Servers]:
    folders = os.pathsep.join(str(PROJECT / folder) for folder in ("operator", "tests"))
    process = subprocess.Popen(
        [sys.executable, str(Path(__file__).with_name("servers.py"))],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": folders},
    )
    with process:
        yield Servers(process)
        process.kill()


def pool(number: int) -> PoolKey:
    return PoolKey("bench", f"pool-{number}")


async def test_a_thousand_daemons() -> None:
    results: dict[str, Figures] = {
        "machine": {"cores": os.cpu_count() or 0, "load average": os.getloadavg()[0]}
    }
    authority, pid = an_authority(), os.getpid()
    access, server = an_access(authority), a_server(authority)
    with a_process_of_servers() as servers:
        servers.tell(
            daemons=DAEMONS,
            certificate=server.pair.certificate.decode(),
            key=server.pair.key.decode(),
            trust=server.trust.decode(),
        )
        addresses = await servers.answer()
        times = Times()
        loads = Loads(Daemon, times)
        running = asyncio.create_task(loads.run())
        # What the first one brings is gRPC itself.
        loads.watch(pool(0), {"pod": addresses[0]}, access)
        await until(lambda: len(times.woken) == 1, "one daemon is known")
        memory, cpu, began = resident_mib(pid), cpu_seconds(pid), time.monotonic()

        for number, address in enumerate(addresses):
            loads.watch(pool(number), {"pod": address}, access)
        everybody = lambda: len(times.woken) == DAEMONS  # noqa: E731
        await until(everybody, "all daemons are known", within=120)
        gc.collect()
        results["from the first to the last daemon"] = {
            "seconds": time.monotonic() - began,
            "CPU seconds": cpu_seconds(pid) - cpu,
            "MiB before": memory,
            "KiB per daemon": (resident_mib(pid) - memory) * 1024 / (DAEMONS - 1),
        }

        await asyncio.sleep(2)
        times.woken.clear()
        results["idle"] = await over(IDLE_SECONDS, pid)
        quiet = dict(times.woken)

        servers.tell(rate=STARTS_AND_ENDS_PER_SECOND, seconds=STORM_SECONDS)
        storm = await over(STORM_SECONDS, pid)
        told = await servers.answer()
        await asyncio.sleep(1)
        delays = sorted(delay(times.woken.get(pool(n), []), at) for n, at in told)
        results["builds start and end"] = storm | {
            "starts and ends per second": len(told) / STORM_SECONDS,
            "ms to the wake-up, p50": delays[len(delays) // 2] * 1000,
            "ms to the wake-up, p99": delays[len(delays) * 99 // 100] * 1000,
            "ms to the wake-up, most": delays[-1] * 1000,
        }

        began = time.monotonic()
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running
        results["the end"] = {"seconds": time.monotonic() - began}
    report("loads", f"{DAEMONS} daemons, each of a pool of its own", results)
    assert not quiet, "a pool is woken although nothing happens"


async def over(seconds: float, pid: int) -> Figures:
    """What so many seconds cost."""
    cpu, began = cpu_seconds(pid), time.monotonic()
    await asyncio.sleep(seconds)
    took = time.monotonic() - began
    return {
        "% of a core": (cpu_seconds(pid) - cpu) / took * 100,
        "MiB": resident_mib(pid),
    }


def delay(woken: list[float], at: float) -> float:
    """Seconds from something that happened to the next wake-up."""
    return min((when - at for when in woken if when >= at), default=float("inf"))
