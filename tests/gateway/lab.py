"""A gateway on loopback: a real Envoy, the real router, and builders that only speak the protocol.

What the cluster would tell is told by the test (``Told``); everything else is the product's own.
"""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import grpc.aio
from aiohttp import ClientSession
from envoy.service.accesslog.v3 import als_pb2_grpc
from envoy.service.discovery.v3 import ads_pb2_grpc
from envoy.service.ext_proc.v3 import external_processor_pb2_grpc

from buildpool.core.naming import PoolKey
from buildpool.core.pki import Bundle
from buildpool.core.routing.connections import Connections
from buildpool.core.routing.values import Target
from buildpool.gateway.access_log import AccessLog
from buildpool.gateway.ext_proc.processor import Processor
from buildpool.gateway.metrics import GatewayMetrics
from buildpool.gateway.pools.config import PoolConfig
from buildpool.gateway.pools.served import ServedPools
from buildpool.gateway.reports.builds import BuildLog, BuildRecord, tell
from buildpool.gateway.reports.details import Details
from buildpool.gateway.slots.store import ConnectionStore
from buildpool.gateway.xds.bootstrap import bootstrap
from buildpool.gateway.xds.discovery import Discovery
from buildpool.gateway.xds.publisher import QUIET, Publisher
from buildpool.process import utc_now
from daemons import Silent, until
from gateway.builders import BRIDGE, CONTROL, FakeBuilder
from gateway.pools import DAY, PoolLab
from gateway.ports import free_port

__all__ = ["BRIDGE", "CONTROL", "FakeBuilder", "Lab", "PoolLab", "a_gateway", "call"]


class Told:
    """What the cluster tells the gateway."""

    def __init__(self) -> None:
        self.configs: dict[PoolKey, PoolConfig] = {}
        self.known: dict[PoolKey, tuple[Target, ...]] = {}
        self.troubles: dict[str, tuple[str, str]] = {}

    def builders(self, pool: PoolKey) -> tuple[Target, ...]:
        return self.known.get(pool, ())

    def trouble(self, address: str) -> tuple[str, str] | None:
        return self.troubles.get(address)


class Lab:
    """The gateway."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.told = Told()
        self.metrics = GatewayMetrics()
        self.closed: list[BuildRecord] = []
        """The builds that have ended and been told of, in this order."""
        self.port, self.router_port, self.admin_port = free_port(), free_port(), free_port()
        self.memory = 1 << 30
        """Bytes that Envoy may have."""
        self.envoy: asyncio.subprocess.Process | None = None
        self.fakes: list[FakeBuilder] = []
        self._router: asyncio.Task[None] | None = None
        self.pools: ServedPools

    async def add_pool(self, pool: PoolLab, *builders: str) -> list[FakeBuilder]:
        """A pool and its builders."""
        fakes = [FakeBuilder(name) for name in builders]
        self.fakes += fakes
        self.told.known[pool.key] = tuple([await fake.start(pool) for fake in fakes])
        self.told.configs[pool.key] = pool.config()
        self.refresh(pool.key)
        await self.settled()
        return fakes

    async def becomes(self, pool: PoolLab, config: PoolConfig | None = None) -> None:
        """The cluster tells something else of a pool; waits until Envoy has heard it."""
        self.told.configs[pool.key] = config or pool.config()
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
            self.pools.refresh(pool)
            self.publisher.update(self.pools.configs)

    async def start_router(self) -> None:
        """A router process, as it were."""
        self.pools = ServedPools(
            self.told,
            lambda *_: Silent(),
            clock=utc_now,
            memory=ConnectionStore(self.folder / "router.db", now=utc_now()),
            told=self._backlog_changed,
            left=self._pool_left,
        )
        self.discovery = Discovery(on_rejected=self.metrics.rejected_configurations.inc)
        self.refused: list[tuple[PoolKey, str | None]] = []
        self.publisher = Publisher(
            self.discovery,
            port=self.port,
            drain_time=DAY,
            on_refused=lambda *why: self.refused.append(why),
        )
        for key in self.told.configs:
            self.pools.refresh(key)
        build_log = BuildLog(self.metrics, complete=Details(self.pools), told=self._build_ended)
        self.server = grpc.aio.server(options=[("grpc.max_receive_message_length", 64 << 20)])
        processor = Processor(self.pools, build_log, self.metrics, clock=utc_now)
        external_processor_pb2_grpc.add_ExternalProcessorServicer_to_server(processor, self.server)
        ads_pb2_grpc.add_AggregatedDiscoveryServiceServicer_to_server(self.discovery, self.server)
        als_pb2_grpc.add_AccessLogServiceServicer_to_server(
            AccessLog(self.pools, self.metrics), self.server
        )
        self.server.add_insecure_port(f"127.0.0.1:{self.router_port}")
        self.publisher.update(self.pools.configs)
        await self.server.start()
        self._router = asyncio.create_task(self._run())

    async def _run(self) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(self.pools.run())
            group.create_task(self.publisher.run())

    def _backlog_changed(self, pool: PoolKey) -> None:
        served = self.pools.find(pool)
        if served is not None:
            self.metrics.waiting(pool, served.waiting)

    def _pool_left(self, pool: PoolKey) -> None:
        self.metrics.forget(pool)
        self.publisher.update(self.pools.configs)

    def _build_ended(self, build: BuildRecord) -> None:
        self.closed.append(build)
        tell(build)

    def connections(self, pool: PoolLab) -> Connections:
        """What the router knows of the connections of a pool that it serves."""
        served = self.pools.find(pool.key)
        assert served is not None
        return served.scheduler.connections

    async def queued(self, pool: PoolLab, count: int) -> None:
        """Waits until exactly so many connections of a pool wait for a slot."""
        connections = self.connections(pool)
        await until(
            lambda: len(list(connections.waiting())) == count,
            f"{count} connections wait",
        )

    async def told_of(self, builds: int) -> list[BuildRecord]:
        """Waits until so many builds have been told of; these."""
        await until(lambda: len(self.closed) >= builds, f"{builds} builds are told of")
        return self.closed

    def metric(self, name: str, **labels: str) -> float:
        """The sum of a metric's samples with these labels, and any others; 0 without any."""
        return sum(
            sample.value
            for metric in self.metrics.registry.collect()
            for sample in metric.samples
            if sample.name == f"buildpool_gateway_{name}"
            and labels.items() <= sample.labels.items()
        )

    async def counted(self, name: str) -> int:
        """One of Envoy's own numbers."""
        address = f"http://127.0.0.1:{self.admin_port}/stats"
        async with ClientSession() as session, session.get(address) as answer:
            lines = (await answer.text()).splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}: "))

    async def comes_to(self, name: str, number: int) -> None:
        """Waits until one of Envoy's own numbers is this."""
        async with asyncio.timeout(10):
            while await self.counted(name) != number:  # noqa: ASYNC110 - nobody tells
                await asyncio.sleep(0.05)

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
        async with asyncio.timeout(60):
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
