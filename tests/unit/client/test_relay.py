"""The port of a port-forward: what goes through it, and what kubectl sees of clients."""

from __future__ import annotations

import asyncio
import gc
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

import pytest

from buildpool.client.relay import PortForward, Relay
from buildpool.core.errors import BuildpoolError
from gateway.ports import free_port

HOST = "127.0.0.1"
Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Inner:
    """Where kubectl listens."""

    def __init__(self) -> None:
        self.taken: asyncio.Queue[Streams] = asyncio.Queue()
        self.port = 0
        self.writers: list[asyncio.StreamWriter] = []

    async def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.writers.append(writer)
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
        for writer in inner.writers:
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()


async def until_ended() -> None:
    """What stands for a kubectl."""
    await asyncio.Event().wait()


@asynccontextmanager
async def a_forward(inner: Inner) -> AsyncIterator[PortForward]:
    """A port-forward that runs until it is ended."""
    process = asyncio.create_task(until_ended())
    try:
        yield PortForward(inner.port, process)
    finally:
        process.cancel()


@dataclass
class Lab:
    """A relay, and what is offered to it."""

    relay: Relay
    port: int
    offers: list[asyncio.Task[None]] = field(default_factory=list)

    def offer(self, forward: PortForward) -> asyncio.Task[None]:
        task = asyncio.create_task(self.relay.offer(forward))
        self.offers.append(task)
        return task

    async def connect(self) -> Streams:
        """A client, once the port is listened on."""
        while True:
            with suppress(ConnectionRefusedError):
                return await asyncio.open_connection(HOST, self.port)
            await asyncio.sleep(0)


@pytest.fixture
async def lab() -> AsyncIterator[Lab]:
    port = free_port()
    made = Lab(Relay(port, drains_seconds=0.2), port)
    async with asyncio.timeout(20):
        yield made
    await made.relay.close()
    for task in made.offers:
        task.cancel()


async def test_all_bytes_go_both_ways_and_ends_are_passed_on(lab: Lab) -> None:
    content = bytes(range(256)) * 8192
    async with an_inner() as inner, a_forward(inner) as forward:
        lab.offer(forward)
        here, client = await lab.connect()
        client.write(content)
        client.write_eof()
        there, server = await inner.taken.get()
        assert await there.read(-1) == content
        server.write(content)
        server.close()
        assert await here.read(-1) == content
        client.close()
        await asyncio.wait((forward.process,))
        assert forward.process.cancelled(), "it is of no use to anybody else"


async def test_who_breaks_off_is_seen_to_end_in_order(lab: Lab) -> None:
    async with an_inner() as inner, a_forward(inner) as forward:
        lab.offer(forward)
        _, client = await lab.connect()
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
        await asyncio.wait((forward.process,))
        assert forward.process.cancelled()


async def test_who_breaks_off_ends_its_port_forward_though_the_other_end_is_silent(
    lab: Lab,
) -> None:
    async with an_inner() as inner, a_forward(inner) as forward:
        lab.offer(forward)
        _, client = await lab.connect()
        client.write(b"hello")
        there, _ = await inner.taken.get()
        assert await there.readexactly(5) == b"hello"
        raw = client.get_extra_info("socket")
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.transport.abort()
        assert await there.read(-1) == b""
        await asyncio.wait((forward.process,))
        assert forward.process.cancelled()


async def test_each_connection_has_a_port_forward_of_its_own(lab: Lab) -> None:
    async with (
        an_inner() as first,
        an_inner() as second,
        a_forward(first) as one,
        a_forward(second) as other,
    ):
        taken = lab.offer(one)
        here, client = await lab.connect()
        _, server = await first.taken.get()
        await taken
        _, waits = await lab.connect()
        waits.write(b"hello")
        assert not other.is_taken.is_set()
        lab.offer(other)
        there, _ = await second.taken.get()
        assert await there.readexactly(5) == b"hello"
        # One that breaks off ends no other.
        server.transport.abort()
        assert await here.read(-1) == b""
        client.close()
        waits.write(b"again")
        assert await there.readexactly(5) == b"again"
        waits.close()


async def test_a_port_forward_that_ends_before_anybody_comes_is_offered_no_more(lab: Lab) -> None:
    async with an_inner() as inner, a_forward(inner) as ended, a_forward(inner) as other:
        offer = lab.offer(ended)
        await asyncio.sleep(0)
        ended.process.cancel()
        await offer
        assert not ended.is_taken.is_set()
        lab.offer(other)
        _, client = await lab.connect()
        await inner.taken.get()
        assert other.is_taken.is_set()
        client.close()


async def test_a_port_that_is_taken_is_named() -> None:
    with socket.create_server((HOST, 0)) as other:
        port = other.getsockname()[1]
        forward = PortForward(1, asyncio.create_task(until_ended()))
        with pytest.raises(BuildpoolError, match=f"port {port} of this machine cannot be"):
            await Relay(port).offer(forward)
        forward.process.cancel()
