"""Builders that only speak the protocol: they build nothing, and keep what they were asked.

What runs on them they say where a test wants it so: else, what the router knows of that, it knows
by itself.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from functools import partial
from typing import Any

import grpc.aio

import daemons
from buildpool.buildkit import BuildEventKind, protobuf
from buildpool.buildkit.history import METHOD as HISTORY
from buildpool.buildkit.history import RUNNING_BUILDS, RUNNING_BUILDS_AND_ON
from buildpool.buildkit.history_requests import digest_in
from buildpool.buildkit.methods import CONTENT
from buildpool.buildkit.solve_requests import read_solve
from buildpool.core import naming
from buildpool.core.pki import Use
from buildpool.core.routing.values import Target
from gateway.pools import PoolLab

CONTROL = "/moby.buildkit.v1.Control/"
BRIDGE = "/moby.buildkit.v1.frontend.LLBBridge/"


class FakeBuilder(grpc.GenericRpcHandler):  # type: ignore[misc]
    """A server with BuildKit's methods: it keeps what it was asked."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.asked: list[tuple[str, bytes]] = []
        """By clients: not what the gateway asks about a build that has ended."""
        self.release = asyncio.Event()
        """Until it is set, sessions and solves go on."""
        self.failure = ""
        """What solves fail with; empty: they end well."""
        self.details = b""
        """What such a failure comes with: its place, with the whole Dockerfile."""
        self.steps: dict[str, tuple[int, int]] = {}
        """Of builds: what is said as they end, their steps that were cached, and all. Of others
        nothing is said, and their lines in the build log wait for seconds."""
        self.history: list[str] = []
        """Refs of the builds that have ended, of which it tells whatever it is asked."""
        self.padding = b""
        """What it adds to each, to be long."""
        self.content: set[str] = set()
        """Digests of what its builds have made."""
        self.forgets = False
        """Whether it never says which builds have ended, and what it has of them."""
        self.hung = 0
        """How often it was asked so."""
        self.refuses = ""
        """What it says instead; empty: it answers."""
        self.listeners: list[asyncio.Queue[bytes]] = []
        """Those who hear what happens."""
        self.names_builds = False
        """Whether the router is told what runs."""
        self.running: list[str] = []
        """Refs of the solves that go on."""
        self.floods = False
        """Whether sessions are sent messages without end."""
        self.sent = 0
        """Bytes that sessions were sent."""
        self.stalls = False
        """Whether it reads nothing of what sessions send, until it is released."""
        self.port = 0
        self._server: grpc.aio.Server | None = None
        self._relay: asyncio.Server | None = None
        self._open: set[asyncio.StreamWriter] = set()

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler:
        method = details.method
        if method == f"{CONTROL}Session":
            return grpc.stream_stream_rpc_method_handler(partial(self._session, method))
        if method == f"{CONTENT}Info":
            return grpc.unary_unary_rpc_method_handler(self._info)
        if method == HISTORY:
            return grpc.unary_stream_rpc_method_handler(self._history)
        return grpc.unary_unary_rpc_method_handler(partial(self._answer, method))

    async def _session(
        self, method: str, requests: AsyncIterator[bytes], context: Any
    ) -> AsyncIterator[bytes]:
        self.asked.append((method, b""))
        await context.send_initial_metadata((("builder", self.name),))
        while self.floods:
            yield protobuf.field(1, bytes(1 << 16))
            self.sent += 1 << 16
        if self.stalls:
            await self.release.wait()
        async for _ in requests:
            pass
        yield b""

    async def _answer(self, method: str, request: bytes, context: Any) -> bytes:
        self.asked.append((method, request))
        if method == f"{CONTROL}Solve":
            ref = read_solve(request).ref
            await self._build(ref)
            if self.failure:
                if self.details:
                    context.set_trailing_metadata((("grpc-status-details-bin", self.details),))
                await context.abort(grpc.StatusCode.UNKNOWN, self.failure)
        await context.send_initial_metadata((("builder", self.name),))
        return protobuf.field(1, self.name.encode())

    async def _info(self, request: bytes, context: Any) -> bytes:
        if self.forgets:
            await self._hang()
        if digest_in(request) not in self.content:
            await context.abort(grpc.StatusCode.NOT_FOUND, "no such content")
        return b""

    async def _history(self, request: bytes, context: Any) -> AsyncIterator[bytes]:
        if request == RUNNING_BUILDS:
            for ref in self.running if self.names_builds else ():
                yield daemons.an_event(BuildEventKind.STARTED, ref)
            return
        if request == RUNNING_BUILDS_AND_ON:
            events: asyncio.Queue[bytes] = asyncio.Queue()
            self.listeners.append(events)
            while True:
                yield await events.get()
        self.asked.append((HISTORY, request))  # a client's
        if self.refuses:
            await context.abort(grpc.StatusCode.UNKNOWN, self.refuses)
        if self.forgets:
            await self._hang()
        for ref in self.running if self.names_builds else ():
            yield daemons.an_event(BuildEventKind.STARTED, ref)
        for ref in self.history:
            yield daemons.an_event(BuildEventKind.COMPLETE, ref) + self.padding

    async def _hang(self) -> None:
        self.hung += 1
        await asyncio.Event().wait()

    async def _build(self, ref: str) -> None:
        """Until it is released, or its client has gone."""
        self.running.append(ref)
        self.tell(BuildEventKind.STARTED, ref)
        try:
            await self.release.wait()
        finally:
            self.running.remove(ref)
            self.tell(BuildEventKind.COMPLETE, ref)
            self._complete(ref)

    def tell(self, kind: BuildEventKind, ref: str) -> None:
        """Who listens hears of a build, if it says what it runs."""
        for listener in self.listeners if self.names_builds else ():
            listener.put_nowait(daemons.an_event(kind, ref))

    def _complete(self, ref: str) -> None:
        """A build has ended: who listens hears of it, twice, as BuildKit does."""
        cached, steps = self.steps.get(ref, (0, 0))
        record = daemons.a_record(ref) + daemons.field(15, cached) + daemons.field(16, steps)
        event = daemons.field(1, BuildEventKind.COMPLETE) + daemons.field(2, record)
        for listener in self.listeners * 2 if ref in self.steps else ():
            listener.put_nowait(event)

    async def start(self, pool: PoolLab) -> Target:
        """Begins to serve with a certificate of the pool."""
        names = naming.server_names(pool.name, pool.namespace, naming.USUAL_DOMAIN)
        bundle = pool.bundle(Use.SERVER, names=names)
        credentials = grpc.ssl_server_credentials(
            [(bundle.pair.key, bundle.pair.certificate)], pool.authority.certificate, True
        )
        self._server = grpc.aio.server(options=[("grpc.max_receive_message_length", 32 << 20)])
        self._server.add_generic_rpc_handlers((self,))
        behind = self._server.add_secure_port("127.0.0.1:0", credentials)
        await self._server.start()
        self._relay = await asyncio.start_server(
            lambda *streams: self._carry(*streams, behind), "127.0.0.1", 0
        )
        self.port = self._relay.sockets[0].getsockname()[1]
        return Target(self.name, f"uid of {self.name}", f"127.0.0.1:{self.port}")

    @property
    def connections(self) -> int:
        """That are open."""
        return sum(not writer.is_closing() for writer in self._open) // 2

    async def _carry(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, behind: int
    ) -> None:
        """One connection, byte by byte: so that it can break as it does where a node fails."""
        try:
            inner_reader, inner_writer = await asyncio.open_connection("127.0.0.1", behind)
        except OSError:  # it has ended
            writer.close()
            return
        self._open |= {writer, inner_writer}
        try:
            await asyncio.gather(_pump(reader, inner_writer), _pump(inner_reader, writer))
        finally:
            self._open -= {writer, inner_writer}

    def vanish(self) -> None:
        """All its connections break, without a word of gRPC."""
        for writer in self._open:
            writer.transport.abort()

    async def stop(self) -> None:
        """Ends at once, whatever goes on."""
        if self._relay is not None:
            self._relay.close()
        self.vanish()
        if self._server is not None:
            await self._server.stop(None)


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while data := await reader.read(1 << 16):
            writer.write(data)
            await writer.drain()
    writer.close()
