"""What a thousand pools cost the gateway: to start with, to add to, to change, to start again.

A real Envoy and the real router on loopback, without builders. Prints a table and writes
``build/bench/xds.json``. Times are reported and never asserted: they are those of this machine.
"""

from __future__ import annotations

import asyncio
import os
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from bench.figures import report
from bench.gateway.residents import resident_of
from buildpool.core.pki import KeyPair
from buildpool.gateway.pools.config import PoolConfig
from buildpool.gateway.xds import resources
from gateway.lab import Lab, PoolLab

POOLS = 1000
BURST = 20
PATIENCE = 60.0
"""Seconds."""


@pytest.fixture
async def lab(tmp_path: Path) -> AsyncIterator[Lab]:
    """A gateway of which nothing runs yet."""
    lab = Lab(tmp_path)
    try:
        yield lab
    finally:
        await lab.stop()


def tell(lab: Lab, *pools: PoolLab) -> None:
    """The cluster tells of pools, all at once."""
    for pool in pools:
        lab.source.configs[pool.key] = pool.config()
        lab.source.changed(pool.key)


def forget(lab: Lab, pool: PoolLab) -> None:
    """The cluster tells that a pool is gone."""
    del lab.source.configs[pool.key]
    lab.source.changed(pool.key)


async def shown(lab: Lab, pool: PoolLab) -> bytes | None:
    """The certificate that Envoy shows clients of a pool; None where it serves none."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    name = f"{pool.name}.{pool.namespace}.svc"
    try:
        _, writer = await asyncio.open_connection(
            "127.0.0.1", lab.port, ssl=context, server_hostname=name
        )
    except OSError:
        return None
    found: bytes | None = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    writer.transport.abort()
    return found


async def until_served(lab: Lab, *pools: PoolLab) -> None:
    """Waits until Envoy shows what the cluster told of these."""
    async with asyncio.timeout(PATIENCE):
        for pool in pools:
            expected = der(lab.source.configs[pool.key].server)
            while await shown(lab, pool) != expected:  # noqa: ASYNC110 - nobody tells
                await asyncio.sleep(0.005)


async def until_refused(lab: Lab, pool: PoolLab) -> None:
    """Waits until Envoy serves a pool no more."""
    async with asyncio.timeout(PATIENCE):
        while await shown(lab, pool) is not None:  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(0.005)


def der(pair: KeyPair) -> bytes:
    """A certificate as TLS shows it."""
    return ssl.PEM_cert_to_DER_cert(pair.certificate.decode())


async def timed(work: Callable[[], Awaitable[object]]) -> float:
    """Seconds."""
    started = time.monotonic()
    await work()
    return time.monotonic() - started


def build_all(configs: list[PoolConfig]) -> float:
    """Seconds to make all resources of these pools."""
    started = time.monotonic()
    resources.listener(map(resources.chain, configs), port=1234)
    for config in configs:
        resources.cluster(config)
        resources.secrets(config)
    return time.monotonic() - started


def resident(lab: Lab) -> float:
    """Memory that Envoy has, in MiB."""
    assert lab.envoy is not None
    return resident_of(lab.envoy.pid)


async def test_bench_a_thousand_pools(lab: Lab) -> None:
    pools = [PoolLab(name=f"pool-{number}") for number in range(POOLS)]
    lab.source.configs = {pool.key: pool.config() for pool in pools}
    building = build_all(list(lab.source.configs.values()))
    publishing = await timed(lab.start_router)

    async def start() -> None:
        await lab.start_envoy()
        await until_served(lab, *pools)

    figures = {
        "resources built s": building,
        "router started s": publishing,
        "all served s": await timed(start),
        "Envoy MiB": resident(lab),
        "the router, and this test, MiB": resident_of(os.getpid()),
    }

    async def change(*changed: PoolLab) -> None:
        tell(lab, *changed)
        await until_served(lab, *changed)

    changes = {
        "one added s": await timed(lambda: change(PoolLab(name="late"))),
        "Envoy then MiB": resident(lab),
        "a burst added s": await timed(
            lambda: change(*(PoolLab(name=f"burst-{number}") for number in range(BURST)))
        ),
        "Envoy after it MiB": resident(lab),
        "one rotated s": await timed(lambda: change(pools[POOLS // 2])),
    }

    async def remove() -> None:
        forget(lab, pools[0])
        await until_refused(lab, pools[0])

    changes["one removed s"] = await timed(remove)
    changes["Envoy at last MiB"] = resident(lab)

    async def start_again() -> None:
        await lab.start_router()
        await lab.settled()

    await lab.stop_router()
    again = {
        "settled s": await timed(start_again),
        "Envoy MiB": resident(lab),
        "the router, and this test, MiB": resident_of(os.getpid()),
    }
    report(
        "xds",
        f"{POOLS} pools",
        {"to start with": figures, "changes": changes, "the router starts again": again},
    )
