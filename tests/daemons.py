"""Servers that speak of builds as BuildKit does, over real gRPC and mTLS, and what opens them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import grpc
import grpc.aio

from buildpool.buildkit import BuildEventKind, DaemonAccess, DaemonError
from buildpool.buildkit.history import RUNNING_BUILDS
from buildpool.core.pki import Bundle, CertificateRequest, KeyPair, Use, issue, issue_authority
from limits import patience

NOW = datetime.now(UTC)
DAY = timedelta(days=1)
STARTED = datetime(2026, 1, 1, 12, 0, 0, 250_000, tzinfo=UTC)


def an_authority() -> KeyPair:
    """What signs the certificates of a pool."""
    return issue_authority("test", now=NOW, lifetime=DAY)


def a_server(authority: KeyPair) -> Bundle:
    """What a daemon serves with."""
    request = CertificateRequest(Use.SERVER, "builder", DAY, dns_names=("ci.builds", "localhost"))
    return issue(authority, request, now=NOW)


def an_access(
    authority: KeyPair, *, trust: bytes | None = None, use: Use = Use.CLIENT
) -> DaemonAccess:
    """What opens it."""
    bundle = issue(authority, CertificateRequest(use, "operator", DAY), now=NOW)
    return DaemonAccess(bundle.trust if trust is None else trust, bundle.pair)


def number(value: int) -> bytes:
    """A varint; negative numbers as 64 bits in two's complement."""
    value &= 2**64 - 1
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*encoded, value])


def field(tag: int, value: int | bytes) -> bytes:
    """A field of a message: a number, or text, bytes or a message."""
    if isinstance(value, int):
        return number(tag << 3) + number(value)
    return number(tag << 3 | 2) + number(len(value)) + value


def a_timestamp(when: datetime) -> bytes:
    """Seconds and nanoseconds; a zero is left out, as protobuf does."""
    seconds, nanos = int(when.timestamp()), when.microsecond * 1000
    return field(1, seconds) + (field(2, nanos) if nanos else b"")


def a_record(ref: str, started: datetime | None = STARTED) -> bytes:
    """A BuildHistoryRecord, with a build argument."""
    argument = field(1, b"build-arg:TOKEN") + field(2, b"hunter2")
    record = field(1, ref.encode()) + field(3, argument)
    return record + (field(6, a_timestamp(started)) if started else b"")


def an_event(kind: BuildEventKind, ref: str) -> bytes:
    """A BuildHistoryEvent; that it is a start is left out, as protobuf does with zeros."""
    return (field(1, kind) if kind else b"") + field(2, a_record(ref))


class HistoryServer:
    """A daemon: builds start and end as it is told. Counts what it is asked."""

    def __init__(self) -> None:
        self.builds: set[str] = set()
        self.asked = 0
        self.snapshots = 0
        self.port = 0
        self.is_hung = False
        """Takes questions and never answers them."""
        self.is_mute = False
        """Tells of no event."""
        self._streams: set[asyncio.Queue[bytes]] = set()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def listeners(self) -> int:
        """Streams of events that are open."""
        return len(self._streams)

    def start(self, *refs: str) -> None:
        self.builds.update(refs)
        for ref in refs:
            self.tell(BuildEventKind.STARTED, ref)

    def end(self, *refs: str) -> None:
        self.builds.difference_update(refs)
        for ref in refs:
            self.tell(BuildEventKind.COMPLETE, ref)
            self.tell(BuildEventKind.COMPLETE, ref)

    def tell(self, kind: BuildEventKind, ref: str) -> None:
        """An event of its own, whatever runs."""
        for stream in () if self.is_mute else self._streams:
            stream.put_nowait(an_event(kind, ref))

    async def listen(self, request: bytes, context: object) -> AsyncIterator[bytes]:
        """ListenBuildHistory."""
        is_snapshot = request == RUNNING_BUILDS
        self.asked += 1
        self.snapshots += is_snapshot
        if self.is_hung:
            await asyncio.Event().wait()
        stream: asyncio.Queue[bytes] = asyncio.Queue()
        if not is_snapshot:
            self._streams.add(stream)
        try:
            for ref in tuple(self.builds):
                yield an_event(BuildEventKind.STARTED, ref)
            while not is_snapshot:
                yield await stream.get()
        finally:
            self._streams.discard(stream)


def grpc_server(
    listen: Callable[[bytes, object], AsyncIterator[bytes]], bundle: Bundle
) -> tuple[grpc.aio.Server, grpc.ServerCredentials]:
    """A server, not yet started, that answers ListenBuildHistory so, and what its ports need."""
    handler = grpc.unary_stream_rpc_method_handler(listen)
    service = {"ListenBuildHistory": handler}
    server = grpc.aio.server(options=(("grpc.so_reuseport", 0),))
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler("moby.buildkit.v1.Control", service),)
    )
    credentials = grpc.ssl_server_credentials(
        [(bundle.pair.key, bundle.pair.certificate)], bundle.trust, require_client_auth=True
    )
    return server, credentials


@asynccontextmanager
async def serving(
    authority: KeyPair, server: HistoryServer | None = None
) -> AsyncIterator[HistoryServer]:
    """A server that serves; one that did before does so again, on the same port."""
    server = server or HistoryServer()
    running, credentials = grpc_server(server.listen, a_server(authority))
    server.port = running.add_secure_port(server.address, credentials)
    await running.start()
    try:
        yield server
    finally:
        await running.stop(grace=None)


class Wire:
    """A network between a client and a server: it can be cut without a word."""

    def __init__(self, port: int) -> None:
        self.port = 0
        self.is_cut = False
        """Nothing passes any more, but nobody is told."""
        self.connections = 0
        """That are open."""
        self.accepted = 0
        self._to = port

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    async def carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection."""
        self.connections += 1
        self.accepted += 1
        onward = await asyncio.open_connection("127.0.0.1", self._to)
        back = asyncio.create_task(self._copy(onward[0], writer))
        try:
            await self._copy(reader, onward[1])
        finally:
            self.connections -= 1
            back.cancel()
            for end in (writer, onward[1]):
                end.close()

    async def _copy(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(1 << 16):
                if not self.is_cut:
                    writer.write(data)
        except ConnectionError:
            return


@asynccontextmanager
async def wired(server: HistoryServer) -> AsyncIterator[Wire]:
    """A wire to a server."""
    wire = Wire(server.port)
    listening = await asyncio.start_server(wire.carry, "127.0.0.1", 0)
    wire.port = listening.sockets[0].getsockname()[1]
    async with listening:
        yield wire


async def until(condition: Callable[[], bool], what: str, *, within: float = 10) -> None:
    """Waits for something to become true; on a busy machine longer than ``within``, in seconds."""
    seconds = patience(within)
    try:
        async with asyncio.timeout(seconds):
            while not condition():  # noqa: ASYNC110 - anything may be waited for
                await asyncio.sleep(0.005)
    except TimeoutError:
        raise AssertionError(f"not within {seconds:g} s: {what}") from None


class Silent:
    """A daemon that tells nobody what it runs."""

    async def snapshot(self) -> tuple[Any, ...]:
        raise DaemonError("it is none")

    async def events(self) -> AsyncIterator[Any]:
        raise DaemonError("it is none")
        yield

    async def records(self, request: bytes, room: Any, *, ref: str = "") -> list[Any]:
        raise DaemonError("it is none")

    async def has_content(self, digest: str) -> bool:
        raise DaemonError("it is none")

    async def close(self) -> None:
        return
