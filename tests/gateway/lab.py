"""A gateway on loopback: a real Envoy, the real router, and builders that only speak the protocol.

What the cluster would say is said by the test (``LabSource``), and what the router would write into
the cluster is kept (``LabStatus``); everything else is the product's own.
"""

from __future__ import annotations

import asyncio
import json
import logging
import shutil
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import grpc.aio
from aiohttp import ClientSession, UnixConnector

from buildpool.core.naming import PoolKey
from buildpool.core.pki import Bundle
from buildpool.core.routing.connections import Connections
from buildpool.core.routing.values import Target
from buildpool.gateway.metrics import GatewayMetrics
from buildpool.gateway.pools.config import PoolConfig
from buildpool.gateway.reports import builds
from buildpool.gateway.reports.status import Entry
from buildpool.gateway.server import Router
from buildpool.gateway.xds.bootstrap import ADMIN_SOCKET, MAX_CONNECTIONS, bootstrap
from buildpool.gateway.xds.limits import LIMITS, Limits
from buildpool.settings import GatewaySettings
from daemons import until
from gateway.builders import BRIDGE, CONTROL, FakeBuilder
from gateway.pools import DAY, PoolLab
from gateway.ports import free_port
from limits import patience

__all__ = ["BRIDGE", "CONTROL", "FakeBuilder", "Lab", "PoolLab", "a_gateway", "call"]


class LabSource:
    """The pools and builders that a test makes, where the gateway has its ``Directory``."""

    def __init__(self) -> None:
        self.configs: dict[PoolKey, PoolConfig] = {}
        self.known: dict[PoolKey, tuple[Target, ...]] = {}
        """The builders of each pool."""
        self.troubles: dict[str, tuple[str, str]] = {}
        self.synced = asyncio.Event()
        self._subscribers: list[Callable[[PoolKey], None]] = []

    def builders(self, pool: PoolKey) -> tuple[Target, ...]:
        return self.known.get(pool, ())

    def trouble(self, address: str) -> tuple[str, str] | None:
        return self.troubles.get(address)

    def subscribe(self, callback: Callable[[PoolKey], None]) -> None:
        self._subscribers.append(callback)

    def changed(self, pool: PoolKey) -> None:
        """Something of a pool is not as it was."""
        for callback in self._subscribers:
            callback(pool)

    async def run(self) -> None:
        for pool in self.configs:
            self.changed(pool)
        self.synced.set()
        try:
            await asyncio.Event().wait()
        finally:
            self.synced.clear()
            self._subscribers.clear()


class LabStatus:
    """What the gateway reports of pools, where it has its ``StatusWriter``."""

    def __init__(self) -> None:
        self.refused: dict[PoolKey, str] = {}
        """Why pools are not served under all of their names."""
        self.serves: dict[PoolKey, list[str | None]] = {}
        """What was reported, one after the other, that pools are served with."""
        self.most_waiting: dict[PoolKey, int] = {}
        """The most builds that were ever reported to wait: any of them wakes its pool."""
        self._entry: Entry | None = None

    def changed(self, pool: PoolKey) -> None:
        entry = self._entry(pool) if self._entry is not None else None
        why = entry.refused if entry is not None else None
        said = self.serves.setdefault(pool, [])
        if entry is not None:
            self.most_waiting[pool] = max(entry.waiting, self.most_waiting.get(pool, 0))
        if entry is not None and entry.serves not in said[-1:]:
            said.append(entry.serves)
        self.refused.pop(pool, None)
        if why is not None:
            self.refused[pool] = why

    async def run(self, entry: Entry) -> None:
        self._entry = entry
        await asyncio.Event().wait()


class BuildLines(logging.Handler):
    """The lines of the build log, each as its fields."""

    def __init__(self) -> None:
        super().__init__()
        self.written: list[dict[str, Any]] = []
        self._level_before = builds.log.level

    def emit(self, record: logging.LogRecord) -> None:
        if fields := record.__dict__.get("buildRecord"):
            self.written.append(fields)

    def start(self) -> None:
        """From now on they are kept."""
        builds.log.setLevel(logging.INFO)
        builds.log.addHandler(self)

    def stop(self) -> None:
        """From now on they are not."""
        builds.log.removeHandler(self)
        builds.log.setLevel(self._level_before)


class Lab:
    """The gateway."""

    def __init__(
        self, folder: Path, limits: Limits = LIMITS, *, connections: int = MAX_CONNECTIONS
    ) -> None:
        """``limits`` are those of each pool; ``connections``, those of all together."""
        self.folder = folder
        self.limits = limits
        self.connections_of_all = connections
        self.source = LabSource()
        self.status = LabStatus()
        self.metrics = GatewayMetrics()
        self.build_lines = BuildLines()
        self.port = free_port()
        self.memory = 1 << 30
        """Bytes that Envoy may have."""
        self.goaway_file = folder / "goaway"
        self.trace_endpoint = ""
        """Where the router sends its spans; empty: it makes none."""
        self.admin = folder / ADMIN_SOCKET
        self.envoy: asyncio.subprocess.Process | None = None
        self.fakes: list[FakeBuilder] = []
        self.router: Router
        self._running: asyncio.Task[None] | None = None

    async def add_pool(self, pool: PoolLab, *builders: str) -> list[FakeBuilder]:
        """A pool and its builders."""
        fakes = [FakeBuilder(name) for name in builders]
        self.fakes += fakes
        self.source.known[pool.key] = tuple([await fake.start(pool) for fake in fakes])
        await self.becomes(pool)
        return fakes

    async def becomes(self, pool: PoolLab, config: PoolConfig | None = None) -> None:
        """A pool comes or changes; waits until Envoy serves it so."""
        self.source.configs[pool.key] = config or pool.config()
        self.source.changed(pool.key)
        await self.settled()

    async def settled(self) -> None:
        """Waits until Envoy has taken all pools as they are."""
        looks = 0
        async with asyncio.timeout(patience(20)):
            # What is published is sent a moment later: one look could come in between.
            while looks < 2:
                await asyncio.sleep(0.02)
                looks = looks + 1 if self.router.is_settled else 0

    async def start_router(self) -> None:
        """A router process, as it were."""
        self.build_lines.start()
        settings = GatewaySettings(
            namespace="buildpool-system",
            identity="router",
            drain_time=DAY,
            port=self.port,
            sockets=self.folder,
            trace_endpoint=self.trace_endpoint,
            memory_file=self.folder / "router.db",
            health_port=0,
        )
        self.router = Router(settings, self.source, self.status, self.metrics, limits=self.limits)
        self._running = asyncio.create_task(self.router.run(asyncio.Event()))
        answers = asyncio.create_task(self.router.answers.wait())
        await asyncio.wait({self._running, answers}, return_when=asyncio.FIRST_COMPLETED)
        answers.cancel()
        if self._running.done():
            self._running.result()

    def connections(self, pool: PoolLab) -> Connections:
        """What the router knows of the connections of a pool that it serves."""
        served = self.router.pools.find(pool.key)
        assert served is not None
        return served.scheduler.connections

    def held(self, pool: PoolLab) -> int:
        """How many requests of a pool wait, or have no slot."""
        served = self.router.pools.find(pool.key)
        assert served is not None
        return served.bounds.waiting

    async def goes_on(self, pool: PoolLab, count: int) -> None:
        """Waits until exactly so many requests of a pool belong to a slot."""
        served = self.router.pools.find(pool.key)
        assert served is not None
        await until(lambda: served.bounds.going_on == count, f"{count} requests go on")

    async def queued(self, pool: PoolLab, count: int) -> None:
        """Waits until exactly so many connections of a pool wait for a slot."""
        connections = self.connections(pool)
        await until(
            lambda: len(list(connections.waiting())) == count,
            f"{count} connections wait",
        )

    async def build_log(self, lines: int) -> list[dict[str, Any]]:
        """Waits until the build log has so many lines; these."""
        written = self.build_lines.written
        await until(lambda: len(written) >= lines, f"the build log has {lines} lines")
        return written

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
        admin = UnixConnector(str(self.admin))
        async with (
            ClientSession("http://envoy", connector=admin) as session,
            session.get("/stats") as answer,
        ):
            lines = (await answer.text()).splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}: "))

    async def comes_to(self, name: str, number: int) -> None:
        """Waits until one of Envoy's own numbers is this."""
        async with asyncio.timeout(patience(10)):
            while await self.counted(name) != number:  # noqa: ASYNC110 - nothing wakes
                await asyncio.sleep(0.05)

    async def stop_router(self) -> None:
        """It ends as a killed process does: without a word."""
        if self._running is not None:
            self._running.cancel()
            await asyncio.gather(self._running, return_exceptions=True)
            self._running = None
        self.build_lines.stop()

    async def start_envoy(self) -> None:
        """A real one."""
        program = shutil.which("envoy")
        assert program, "envoy is not on the PATH: `python -m devcluster program envoy`"
        config = self.folder / "bootstrap.json"
        self.goaway_file.write_text("0")
        static = bootstrap(
            sockets=self.folder,
            memory=self.memory,
            goaway_file=str(self.goaway_file),
            connections=self.connections_of_all,
        )
        config.write_text(json.dumps(static))
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

    async def takes_no_connections(self) -> None:
        """Waits until Envoy does not listen any more."""
        async with asyncio.timeout(patience(20)):
            with suppress(OSError):
                while True:
                    _, writer = await asyncio.open_connection("127.0.0.1", self.port)
                    writer.close()
                    await asyncio.sleep(0.05)

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
        self,
        pool: PoolLab,
        bundle: Bundle | None = None,
        *,
        name: str = "",
        is_narrow: bool = False,
    ) -> grpc.aio.Channel:
        """A connection of its own, as a client makes it.

        ``is_narrow``: whether nothing more is sent to it than it reads.
        """
        # Its window is as small as can be, and does not grow.
        narrow = [("grpc.http2.bdp_probe", 0), ("grpc.http2.lookahead_bytes", 65_535)]
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
                # As clients in Go take them.
                ("grpc.max_metadata_size", 16 << 20),
                ("grpc.absolute_max_metadata_size", 16 << 20),
                ("grpc.enable_http_proxy", 0),
                *narrow * is_narrow,
            ],
        )


@asynccontextmanager
async def a_gateway(
    folder: Path,
    limits: Limits = LIMITS,
    *,
    connections: int = MAX_CONNECTIONS,
    trace_endpoint: str = "",
) -> AsyncIterator[Lab]:
    """A gateway that serves no pool yet."""
    lab = Lab(folder, limits, connections=connections)
    lab.trace_endpoint = trace_endpoint
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
    deadline: float | None = None,
) -> bytes:
    """One request; the answer, or ``grpc.aio.AioRpcError``.

    ``deadline``: what the client says for how long it waits, in seconds; builds say nothing.
    """
    async with asyncio.timeout(within):
        return await channel.unary_unary(method)(  # type: ignore[no-any-return]
            request, metadata=tuple((headers or {}).items()), timeout=deadline
        )
