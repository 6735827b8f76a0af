"""What the router does with a build is in the trace of its client; no collector holds one up."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path

from daemons import until
from gateway.asking import HELLO, SOLVE, a_solve, asked, begun
from gateway.lab import PoolLab, a_gateway, call
from otlp import a_collector

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
TRACED = {"traceparent": f"00-{TRACE}-{PARENT}-01"}
UNKNOWN = {"traceparent": "who knows"}


async def test_wait_and_place_of_a_build_are_in_the_trace_of_its_client(tmp_path: Path) -> None:
    pool = PoolLab(slots=1)
    with a_collector() as collector:
        async with a_gateway(tmp_path, trace_endpoint=collector.endpoint) as lab:
            (builder,) = await lab.add_pool(pool, "ci-builder-0")
            async with lab.connect(pool) as first, lab.connect(pool) as second:
                await call(first, HELLO, headers=UNKNOWN)
                running = begun(first, SOLVE, a_solve())
                await asked(builder, SOLVE, 1)
                waiting = asyncio.create_task(call(second, HELLO, headers=TRACED))
                await lab.queued(pool, 1)
                builder.release.set()
                await running
                await first.close()
                await waiting
                await call(second, HELLO, headers=TRACED)  # it has its slot, and waits for nothing
                await call(second, SOLVE, a_solve("b2"), headers=TRACED)
            await until(lambda: len(collector.spans) >= 2, "both are sent")
        wait, place = sorted(collector.spans, key=lambda span: span.begun)
    for span in (wait, place):
        assert (span.source, span.trace, span.parent) == ("buildpool-gateway", TRACE, PARENT)
        assert span.attributes["buildpool.pool"] == str(pool.key)
        assert span.ended >= span.begun
    assert (wait.name, place.name) == ("wait for a slot", "place the build")
    assert place.attributes["buildpool.build"] == "b2"
    assert place.attributes["buildpool.builder"] == "ci-builder-0"


async def test_a_collector_that_hangs_holds_up_no_build(tmp_path: Path) -> None:
    pool = PoolLab()
    with socket.create_server(("127.0.0.1", 0), backlog=1) as silent:
        endpoint = f"http://127.0.0.1:{silent.getsockname()[1]}"
        async with a_gateway(tmp_path, trace_endpoint=endpoint) as lab:
            (builder,) = await lab.add_pool(pool, "ci-builder-0")
            builder.release.set()
            async with lab.connect(pool) as channel:
                for number in range(20):
                    await call(channel, HELLO, headers=TRACED)
                    await call(channel, SOLVE, a_solve(f"b{number}"), headers=TRACED)
