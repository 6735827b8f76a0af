"""The end of a gateway's pod: what runs goes on, and who never ends is sent elsewhere."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import grpc.aio

from buildpool.gateway.draining import drain
from daemons import until
from gateway.asking import HELLO, SOLVE, a_solve, asked, begun
from gateway.lab import Lab, PoolLab, call


async def test_who_keeps_a_connection_is_sent_elsewhere_and_what_runs_ends_well(lab: Lab) -> None:
    pool = PoolLab()
    (builder,) = await lab.add_pool(pool, "ci-builder-0")
    async with lab.connect(pool) as channel:
        await call(channel, HELLO)
        running = begun(channel, SOLVE, a_solve())
        await asked(builder, SOLVE, 1)
        draining = asyncio.create_task(
            drain(
                admin_port=lab.admin_port,
                settle=timedelta(0),
                patience=timedelta(seconds=16),
                goaway_file=lab.goaway_file,
            )
        )
        await lab.takes_no_connections()
        await call(channel, HELLO)
        assert lab.goaway_file.read_text() == "0", "its builds may end on the connection they know"
        is_said = lambda: lab.goaway_file.read_text() == "1"  # noqa: E731
        await until(is_said, "half of the time is over", within=30)
        refusal = ""
        async with asyncio.timeout(30):
            while not refusal:
                try:
                    await call(channel, HELLO)
                except grpc.aio.AioRpcError as error:
                    refusal = error.details() or ""
        assert "connect" in refusal, "it asks for another connection, which this pod does not take"
        assert not running.done()
        builder.release.set()
        assert await running
        await draining
