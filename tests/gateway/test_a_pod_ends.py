"""The end of a gateway's pod: what runs goes on, and who never ends is sent elsewhere."""

from __future__ import annotations

import asyncio
import ssl
from datetime import timedelta

import grpc.aio
import pytest

from buildpool.gateway.draining import CONNECTIONS, drain
from daemons import until
from gateway.asking import HELLO, SOLVE, a_solve, asked, begun
from gateway.lab import Lab, PoolLab, call

GOAWAY = 7
"""Type of a frame of HTTP/2."""


async def test_who_keeps_a_connection_is_sent_elsewhere_and_what_runs_ends_well(lab: Lab) -> None:
    pool = PoolLab()
    (builder,) = await lab.add_pool(pool, "ci-builder-0")
    async with lab.connect(pool) as channel:
        await call(channel, HELLO)
        running = begun(channel, SOLVE, a_solve())
        await asked(builder, SOLVE, 1)
        draining = asyncio.create_task(
            drain(
                admin=lab.admin,
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


async def test_who_keeps_a_connection_and_does_nothing_is_told_before_it_ends(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("buildpool.gateway.draining.TAKEN_SECONDS", 60.0)
    pool = PoolLab()
    await lab.add_pool(pool, "ci-builder-0")
    reader, writer = await a_quiet_connection(lab, pool)
    assert await frame_type(reader) is not None, "Envoy's own settings"
    drained = drain(
        admin=lab.admin,
        settle=timedelta(0),
        patience=timedelta(hours=1),
        goaway_file=lab.goaway_file,
    )
    draining = asyncio.create_task(drained)
    found: list[int | None] = [await frame_type(reader)]
    while found[-1] not in (None, GOAWAY):
        found.append(await frame_type(reader))
    assert found[-1] == GOAWAY, "a connection that is cut may be that of the next build"
    writer.close()
    assert await draining
    assert await lab.counted(CONNECTIONS) == 0


async def a_quiet_connection(
    lab: Lab, pool: PoolLab
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A connection of HTTP/2 that asks for nothing."""
    bundle = pool.client()
    files = {"ca": pool.authority.certificate, "key": bundle.pair.key}
    for name, content in (files | {"pair": bundle.pair.certificate}).items():
        (lab.folder / name).write_bytes(content)
    context = ssl.create_default_context(cafile=str(lab.folder / "ca"))
    context.load_cert_chain(str(lab.folder / "pair"), str(lab.folder / "key"))
    context.set_alpn_protocols(["h2"])
    name = f"{pool.name}.{pool.namespace}.svc"
    reader, writer = await asyncio.open_connection(
        "127.0.0.1", lab.port, ssl=context, server_hostname=name
    )
    settings = bytes((0, 0, 0, 4, 0, 0, 0, 0, 0))
    writer.write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + settings)
    return reader, writer


async def frame_type(reader: asyncio.StreamReader) -> int | None:
    """The type of the next frame; None where the connection has ended."""
    try:
        async with asyncio.timeout(60):
            head = await reader.readexactly(9)
            await reader.readexactly(int.from_bytes(head[:3]))
    except (asyncio.IncompleteReadError, ConnectionError):
        return None
    return head[3]
