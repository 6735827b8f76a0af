"""A gateway on loopback: a real Envoy, the real router, and builders that only speak the protocol.

What the cluster would tell is told by the test (``Told``); everything else is the product's own.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import grpc.aio
from envoy.service.accesslog.v3 import als_pb2_grpc
from envoy.service.discovery.v3 import ads_pb2_grpc
from envoy.service.ext_proc.v3 import external_processor_pb2_grpc

from buildpool import naming
from buildpool.api import AffinityKey
from buildpool.buildkit import DaemonError, protobuf
from buildpool.controller.clock import utc_now
from buildpool.gateway.builds import Build, Ledger
from buildpool.gateway.house import House
from buildpool.gateway.journal import Journal
from buildpool.gateway.memory import Memory
from buildpool.gateway.metrics import GatewayMetrics
from buildpool.gateway.processor import Processor
from buildpool.gateway.tenants import Tenant
from buildpool.gateway.xds.bootstrap import bootstrap
from buildpool.gateway.xds.discovery import Discovery
from buildpool.gateway.xds.publishing import QUIET, Publisher
from buildpool.naming import PoolKey
from buildpool.pki import Bundle, CertificateRequest, KeyPair, Use, issue, issue_authority
from buildpool.routing.values import Brief, Builder, CacheBrief, ClientBrief

CONTROL = "/moby.buildkit.v1.Control/"
BRIDGE = "/moby.buildkit.v1.frontend.LLBBridge/"
DAY = timedelta(days=1)


def free_port() -> int:
    """A TCP port that nobody has."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


@dataclass
class Silent:
    """A daemon that answers nobody: these builders are no real ones."""

    async def snapshot(self) -> tuple[Any, ...]:
        raise DaemonError("it is none")

    async def events(self) -> AsyncIterator[Any]:
        raise DaemonError("it is none")
        yield

    async def close(self) -> None:
        return


@dataclass
class PoolLab:
    """One pool: its authority, and what it issues."""

    name: str = "ci"
    namespace: str = "builds"
    slots: int = 1
    max_wait: timedelta = timedelta(minutes=5)
    cache: CacheBrief | None = None
    clients: tuple[ClientBrief, ...] = ()
    hostnames: tuple[str, ...] = ()
    authority: KeyPair = field(
        default_factory=lambda: issue_authority("an authority", now=utc_now(), lifetime=10 * DAY)
    )

    @property
    def key(self) -> PoolKey:
        return PoolKey(self.namespace, self.name)

    def bundle(
        self,
        use: Use,
        *,
        names: tuple[str, ...] = (),
        uri: str = "",
        lifetime: timedelta = DAY,
        ago: timedelta = timedelta(0),
    ) -> Bundle:
        request = CertificateRequest(
            use=use,
            common_name="somebody",
            lifetime=lifetime,
            dns_names=names,
            uris=(uri,) if uri else (),
        )
        return issue(self.authority, request, now=utc_now() - ago)

    def client(self, name: str = "ann", **how: Any) -> Bundle:
        """What a client shows."""
        return self.bundle(Use.CLIENT, uri=naming.client_identity(self.key, name), **how)

    def tenant(self, **changes: Any) -> Tenant:
        """What the gateway is told."""
        names = naming.gateway_names(self.name, self.namespace)
        brief = Brief(
            **{
                "namespace": self.namespace,
                "name": self.name,
                "uid": "uid",
                "server_names": (*names, *self.hostnames),
                "upstream_name": names[-2],
                "slots": self.slots,
                "max_wait": self.max_wait,
                "affinity": tuple(AffinityKey),
                "clients": self.clients
                or tuple(
                    ClientBrief(identity=naming.client_identity(self.key, name), name=name)
                    for name in ("ann", "bob")
                ),
                "cache": self.cache,
                **changes,
            }
        )
        return Tenant(
            brief,
            server=self.bundle(Use.SERVER, names=brief.server_names).pair,
            upstream=self.bundle(Use.CLIENT, uri=naming.gateway_identity(self.key)).pair,
            trust=self.authority.certificate,
        )


class Told:
    """What the cluster tells the gateway."""

    def __init__(self) -> None:
        self.tenants: dict[PoolKey, Tenant] = {}
        self.known: dict[PoolKey, tuple[Builder, ...]] = {}
        self.troubles: dict[str, tuple[str, str]] = {}

    def builders(self, pool: PoolKey) -> tuple[Builder, ...]:
        return self.known.get(pool, ())

    def trouble(self, address: str) -> tuple[str, str] | None:
        return self.troubles.get(address)


class FakeBuilder(grpc.GenericRpcHandler):  # type: ignore[misc]
    """A server with BuildKit's methods: it notes what it was asked."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.asked: list[tuple[str, bytes]] = []
        self.release = asyncio.Event()
        """Until it is set, sessions and solves go on."""
        self.floods = False
        """Whether sessions are told things without end."""
        self.told = 0
        """Bytes that sessions were told."""
        self.port = 0
        self._server: grpc.aio.Server | None = None
        self._relay: asyncio.Server | None = None
        self._open: set[asyncio.StreamWriter] = set()

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler:
        method = details.method

        async def stream(requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
            self.asked.append((method, b""))
            await context.send_initial_metadata((("builder", self.name),))
            while self.floods:
                yield protobuf.field(1, bytes(1 << 16))
                self.told += 1 << 16
            async for _ in requests:
                pass
            yield b""

        async def unary(request: bytes, context: Any) -> bytes:
            self.asked.append((method, request))
            if method == f"{CONTROL}Solve":
                await self.release.wait()
            await context.send_initial_metadata((("builder", self.name),))
            return protobuf.field(1, self.name.encode())

        if method == f"{CONTROL}Session":
            return grpc.stream_stream_rpc_method_handler(stream)
        return grpc.unary_unary_rpc_method_handler(unary)

    async def start(self, pool: PoolLab) -> Builder:
        """Begins to serve with a certificate of the pool."""
        names = naming.server_names(pool.name, pool.namespace)
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
        return Builder(self.name, f"uid of {self.name}", f"127.0.0.1:{self.port}")

    async def _carry(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, behind: int
    ) -> None:
        """One connection, byte by byte: so that it can break as it does where a node fails."""
        inner_reader, inner_writer = await asyncio.open_connection("127.0.0.1", behind)
        self._open |= {writer, inner_writer}
        await asyncio.gather(_pump(reader, inner_writer), _pump(inner_reader, writer))

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


class Lab:
    """The gateway."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.told = Told()
        self.metrics = GatewayMetrics()
        self.closed: list[Build] = []
        self.port, self.router_port, self.admin_port = free_port(), free_port(), free_port()
        self.memory = 1 << 30
        """Bytes that Envoy may have."""
        self.envoy: asyncio.subprocess.Process | None = None
        self.fakes: list[FakeBuilder] = []
        self._router: asyncio.Task[None] | None = None
        self.house: House

    async def add_pool(self, pool: PoolLab, *builders: str) -> list[FakeBuilder]:
        """A pool and its builders."""
        fakes = [FakeBuilder(name) for name in builders]
        self.fakes += fakes
        self.told.known[pool.key] = tuple([await fake.start(pool) for fake in fakes])
        self.told.tenants[pool.key] = pool.tenant()
        self.refresh(pool.key)
        await self.settled()
        return fakes

    async def becomes(self, pool: PoolLab, tenant: Tenant | None = None) -> None:
        """The cluster tells something else of a pool; waits until Envoy has heard it."""
        self.told.tenants[pool.key] = tenant or pool.tenant()
        self.refresh(pool.key)
        await self.settled()

    async def settled(self) -> None:
        """Waits until Envoy has taken what the router has to tell."""
        async with asyncio.timeout(20):
            await asyncio.sleep(QUIET + 0.05)
            while not self.discovery.is_settled:  # noqa: ASYNC110 - nobody tells
                await asyncio.sleep(0.02)

    def refresh(self, pool: PoolKey) -> None:
        """The cluster tells something new of a pool."""
        if self._router is not None:
            self.house.refresh(pool)
            self.publisher.update(self.house.tenants)

    async def start_router(self) -> None:
        """A router process, as it were."""
        self.house = House(
            self.told,
            lambda *_: Silent(),
            clock=utc_now,
            memory=Memory(self.folder / "router.db", now=utc_now()),
            told=lambda _: None,  # type: ignore[arg-type]
        )
        self.discovery = Discovery(on_rejected=self.metrics.rejected_configurations.inc)
        self.refused: list[tuple[PoolKey, str | None]] = []
        self.publisher = Publisher(
            self.discovery,
            port=self.port,
            drain_time=DAY,
            on_refused=lambda *why: self.refused.append(why),
        )
        for key in self.told.tenants:
            self.house.refresh(key)
        ledger = Ledger(self.metrics, inquire=nothing, told=self.closed.append)
        self.server = grpc.aio.server(options=[("grpc.max_receive_message_length", 64 << 20)])
        processor = Processor(self.house, ledger, self.metrics, clock=utc_now)
        external_processor_pb2_grpc.add_ExternalProcessorServicer_to_server(processor, self.server)
        ads_pb2_grpc.add_AggregatedDiscoveryServiceServicer_to_server(self.discovery, self.server)
        als_pb2_grpc.add_AccessLogServiceServicer_to_server(
            Journal(self.house, self.metrics), self.server
        )
        self.server.add_insecure_port(f"127.0.0.1:{self.router_port}")
        self.publisher.update(self.house.tenants)
        await self.server.start()
        self._router = asyncio.create_task(self._run())

    async def _run(self) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(self.house.run())
            group.create_task(self.publisher.run())

    async def stop_router(self) -> None:
        """It ends as a killed process does: without a word."""
        if self._router is not None:
            self._router.cancel()
            await asyncio.gather(self._router, return_exceptions=True)
            await self.server.stop(None)
            self._router = None

    async def start_envoy(self) -> None:
        """A real one."""
        program = shutil.which("envoy")
        assert program, "envoy is not on the PATH: `python -m devcluster program envoy`"
        config = self.folder / "bootstrap.json"
        config.write_text(
            json.dumps(
                bootstrap(
                    router_port=self.router_port, admin_port=self.admin_port, memory=self.memory
                )
            )
        )
        with (self.folder / "envoy.log").open("w") as log:
            self.envoy = await asyncio.create_subprocess_exec(
                program, "-c", str(config), "--drain-time-s", "86400", "--concurrency", "2",
                "--disable-hot-restart", "--log-level", "warning",
                stdout=log, stderr=log,
            )  # fmt: skip

    async def serves(self) -> None:
        """Waits until Envoy listens."""
        async with asyncio.timeout(20):
            while True:
                try:
                    _, writer = await asyncio.open_connection("127.0.0.1", self.port)
                except OSError:
                    await asyncio.sleep(0.05)
                else:
                    writer.close()
                    return

    async def stop(self) -> None:
        """Everything ends."""
        await self.stop_router()
        if self.envoy is not None and self.envoy.returncode is None:
            self.envoy.kill()
            await self.envoy.wait()
        for fake in self.fakes:
            fake.release.set()
            await fake.stop()

    def connect(
        self, pool: PoolLab, bundle: Bundle | None = None, *, name: str = ""
    ) -> grpc.aio.Channel:
        """A connection of its own, as a client makes it."""
        bundle = bundle or pool.client()
        target = name or f"{pool.name}.{pool.namespace}.svc"
        credentials = grpc.ssl_channel_credentials(
            pool.authority.certificate, bundle.pair.key, bundle.pair.certificate
        )
        return grpc.aio.secure_channel(
            f"127.0.0.1:{self.port}",
            credentials,
            options=[
                ("grpc.ssl_target_name_override", target),
                ("grpc.default_authority", target),
                ("grpc.use_local_subchannel_pool", 1),
                ("grpc.enable_retries", 0),
                ("grpc.max_send_message_length", 64 << 20),
                ("grpc.enable_http_proxy", 0),
            ],
        )


async def nothing(_: Build) -> None:
    """These builders keep no records."""


@asynccontextmanager
async def a_gateway(folder: Path) -> AsyncIterator[Lab]:
    """A gateway that serves no pool yet."""
    lab = Lab(folder)
    try:
        await lab.start_router()
        await lab.start_envoy()
        await lab.serves()
        yield lab
    finally:
        await lab.stop()


async def call(
    channel: grpc.aio.Channel,
    method: str,
    request: bytes = b"",
    *,
    headers: Mapping[str, str] | None = None,
    within: float = 30,
) -> bytes:
    """One request; the answer, or ``grpc.aio.AioRpcError``."""
    return await channel.unary_unary(method)(  # type: ignore[no-any-return]
        request, metadata=tuple((headers or {}).items()), timeout=within
    )
