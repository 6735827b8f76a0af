"""What one client takes from others: uploads that stall, connections held, pools that change.

A real Envoy and the real router on loopback. The crowd is a process of its own. Another pool builds
all the while; its median build is compared with the same in the same run, before and after. Prints
a table and writes ``build/bench/crowds.json``.
"""

from __future__ import annotations

import asyncio
import json
import os
import statistics
import sys
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

import pytest

from bench.figures import report
from bench.gateway.residents import resident_of
from cluster import PROJECT
from gateway.asking import HELLO, SOLVE, a_solve
from gateway.lab import Lab, PoolLab, a_gateway, call

BUILDS = 150
UPLOADS = 40
HELD = 5_000
POOLS = 1_000
CHANGES = 20
"""One each second."""
TICK_SECONDS = 0.002


@pytest.fixture
async def lab(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Lab]:
    """A gateway with a pool that builds."""
    async with a_gateway(tmp_path_factory.mktemp("gateway")) as lab:
        yield lab


@pytest.fixture
async def neighbour(lab: Lab) -> PoolLab:
    """The pool that builds beside the crowd; its builds take no time by themselves."""
    pool = PoolLab(name="neighbour", slots=4)
    (builder,) = await lab.add_pool(pool, "neighbour-builder-0")
    builder.release.set()
    return pool


async def a_median_build(lab: Lab, pool: PoolLab) -> float:
    """Milliseconds of the median of many builds in turn, each on a connection of its own."""
    took = []
    for number in range(BUILDS):
        started = time.monotonic()
        async with lab.connect(pool) as channel:
            await call(channel, HELLO)
            await call(channel, SOLVE, a_solve(f"build {number}"))
        took.append(time.monotonic() - started)
    return statistics.median(took) * 1000


async def longest_standstill(during: asyncio.Task[object]) -> float:
    """Milliseconds for which this loop, the router's too, served nobody, while something ran."""
    longest = 0.0
    while not during.done():
        started = time.monotonic()
        await asyncio.sleep(TICK_SECONDS)
        longest = max(longest, time.monotonic() - started - TICK_SECONDS)
    return longest * 1000


@asynccontextmanager
async def a_crowd(lab: Lab, pool: PoolLab, act: str, times: int) -> AsyncIterator[int]:
    """How many of so many connections were let in; they are held meanwhile."""
    bundle = pool.client()
    asked = {
        "at": {
            "port": lab.port,
            "name": f"{pool.name}.{pool.namespace}.svc",
            "ca": pool.authority.certificate.decode(),
            "key": bundle.pair.key.decode(),
            "certificate": bundle.pair.certificate.decode(),
        },
        "act": act,
        "times": times,
    }
    paths = (PROJECT / "operator", PROJECT / "tests")
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "bench.gateway.crowd",
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(map(str, paths))},
    )  # fmt: skip
    assert process.stdin
    assert process.stdout
    try:
        process.stdin.write(json.dumps(asked).encode() + b"\n")
        line = await asyncio.wait_for(process.stdout.readline(), 300)
        yield int(line.removeprefix(b"ready "))
    finally:
        process.kill()
        await process.wait()


def envoy_of(lab: Lab) -> float:
    """Memory of Envoy, in MiB."""
    assert lab.envoy is not None
    return resident_of(lab.envoy.pid)


async def beside(
    lab: Lab, neighbour: PoolLab, crowded: PoolLab, act: str, times: int
) -> Mapping[str, float]:
    """What the neighbour's builds take before, beside and after a crowd, and what that costs."""
    await a_median_build(lab, neighbour)  # all is warm
    alone, envoy, router = (
        await a_median_build(lab, neighbour),
        envoy_of(lab),
        resident_of(os.getpid()),
    )
    async with a_crowd(lab, crowded, act, times) as let_in:
        crowd = await a_median_build(lab, neighbour)
        grown = envoy_of(lab) - envoy
        figures = {
            "connections let in": let_in,
            "a build alone ms": alone,
            "beside the crowd ms": crowd,
            "beside / alone": crowd / alone,
            "Envoy MiB more": grown,
            "Envoy MiB more, each": grown / max(1, let_in),
            "the router, builders, this test MiB more": resident_of(os.getpid()) - router,
        }
    return {**figures, "a build afterwards ms": await a_median_build(lab, neighbour)}


async def test_bench_crowds(lab: Lab, neighbour: PoolLab) -> None:
    uploads = PoolLab(name="uploads", slots=100)
    (builder,) = await lab.add_pool(uploads, "uploads-builder-0")
    builder.stalls = True
    held = PoolLab(name="held")
    await lab.add_pool(held, "held-builder-0")
    results = {
        f"{UPLOADS} stalled uploads": await beside(lab, neighbour, uploads, "upload", UPLOADS),
        f"{HELD} held connections": await beside(lab, neighbour, held, "hold", HELD),
        f"{POOLS} pools, one changes each second": await changes(lab, neighbour),
        f"{POOLS} pools, one comes or goes each second": await changes(lab, neighbour, come=True),
    }
    report("crowds", f"{BUILDS} builds of another pool, in turn", results)


async def changes(lab: Lab, neighbour: PoolLab, *, come: bool = False) -> Mapping[str, float]:
    """What the neighbour's builds take while other pools get new certificates, or come and go."""
    pools = [PoolLab(name=f"pool-{number}") for number in range(POOLS)]
    for pool in pools:
        lab.source.configs[pool.key] = pool.config()
    for pool in pools:
        lab.source.changed(pool.key)
    await lab.settled()
    some = [PoolLab(name=f"late-{number}") for number in range(CHANGES // 2)] * 2
    changed = [(pool, pool.config()) for pool in (some if come else pools[:CHANGES])]
    alone = await a_median_build(lab, neighbour)
    quiet = await longest_standstill(asyncio.create_task(a_median_build(lab, neighbour)))

    async def change() -> None:
        for pool, config in changed:
            if come and pool.key in lab.source.configs:
                del lab.source.configs[pool.key]
            else:
                lab.source.configs[pool.key] = config
            lab.source.changed(pool.key)
            await asyncio.sleep(1)

    changing = asyncio.create_task(change())
    standstill = asyncio.create_task(longest_standstill(changing))
    medians = []
    while not changing.done():
        medians.append(await a_median_build(lab, neighbour))
    beside_changes = statistics.median(medians)
    return {
        "a build alone ms": alone,
        "beside the changes ms": beside_changes,
        "beside / alone": beside_changes / alone,
        "longest standstill alone ms": quiet,
        "longest standstill beside ms": await standstill,
        "Envoy MiB": envoy_of(lab),
    }
