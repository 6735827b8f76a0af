"""The port of a port-forward: what goes through it, and what kubectl sees of clients."""

from __future__ import annotations

import asyncio
import gc
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from buildpool.client.relay import Relay
from buildpool.core.errors import BuildpoolError
from gateway.ports import free_port

HOST = "127.0.0.1"
Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Inner:
    """Where kubectl listens."""

    def __init__(self) -> None:
        self.taken: asyncio.Queue[Streams] = asyncio.Queue()
        self.port = 0

    async def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await self.taken.put((reader, writer))


@asynccontextmanager
async def an_inner() -> AsyncIterator[Inner]:
    inner = Inner()
    server = await asyncio.start_server(inner.accept, HOST, 0)
    inner.port = server.sockets[0].getsockname()[1]
    try:
        yield inner
    finally:
        server.close()


@pytest.fixture
async def relay() -> AsyncIterator[tuple[Relay, int]]:
    port = free_port()
    made = Relay(port)
    yield made, port
    made.close()


async def test_all_bytes_go_both_ways_and_ends_are_passed_on(relay: tuple[Relay, int]) -> None:
    passed, port = relay
    content = bytes(range(256)) * 8192
    async with asyncio.timeout(20), an_inner() as inner:
        await passed.lead_to(inner.port)
        here, client = await asyncio.open_connection(HOST, port)
        client.write(content)
        client.write_eof()
        there, server = await inner.taken.get()
        assert await there.read(-1) == content
        server.write(content)
        server.close()
        assert await here.read(-1) == content
        client.close()


async def test_who_breaks_off_is_seen_to_end_in_order(relay: tuple[Relay, int]) -> None:
    passed, port = relay
    async with asyncio.timeout(20), an_inner() as inner:
        await passed.lead_to(inner.port)
        _, client = await asyncio.open_connection(HOST, port)
        client.write(b"hello")
        there, server = await inner.taken.get()
        assert await there.readexactly(5) == b"hello"
        raw = client.get_extra_info("socket")
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.transport.abort()  # by a reset
        del client, raw
        gc.collect()
        assert await there.read(-1) == b"", "a reset would be an error here"
        # What was on its way to it harms nobody.
        gc.collect()
        server.write(bytes(1 << 20))
        await server.drain()
        server.close()
        await server.wait_closed()


async def test_who_connects_while_kubectl_starts_again_waits(relay: tuple[Relay, int]) -> None:
    passed, port = relay
    async with asyncio.timeout(20), an_inner() as first, an_inner() as second:
        await passed.lead_to(first.port)
        await passed.lead_to(0)
        here, client = await asyncio.open_connection(HOST, port)
        client.write(b"hello")
        assert first.taken.empty()
        await passed.lead_to(second.port)
        there, server = await second.taken.get()
        assert await there.readexactly(5) == b"hello"
        server.close()
        assert await here.read(-1) == b""
        client.close()


async def test_an_end_of_kubectl_ends_what_goes_through_it(relay: tuple[Relay, int]) -> None:
    passed, port = relay
    async with asyncio.timeout(20), an_inner() as inner:
        await passed.lead_to(inner.port)
        here, client = await asyncio.open_connection(HOST, port)
        _, server = await inner.taken.get()
        server.transport.abort()
        assert await here.read(-1) == b""
        client.close()


async def test_a_port_that_is_taken_is_named() -> None:
    with socket.create_server((HOST, 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(BuildpoolError, match=f"port {port} of this machine cannot be"):
            await Relay(port).lead_to(1)
