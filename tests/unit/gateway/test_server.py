"""A router process as it ends, without an Envoy."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import grpc.aio
import pytest
from envoy.service.ext_proc.v3 import external_processor_pb2 as ext_proc
from envoy.service.ext_proc.v3 import external_processor_pb2_grpc as ext_proc_grpc

from buildpool.buildkit.methods import CONTROL
from buildpool.core.api.status import GatewayStatus
from buildpool.core.naming import PoolKey
from buildpool.core.observed.load import RunningBuild
from buildpool.core.routing.values import Target
from buildpool.gateway import server as module
from buildpool.gateway.metrics import GatewayMetrics
from buildpool.gateway.pools.config import PoolConfig
from buildpool.gateway.reports.status import Entry
from buildpool.gateway.server import Router
from buildpool.gateway.slots.store import ConnectionStore, Home
from buildpool.gateway.xds.bootstrap import ROUTER_SOCKET
from buildpool.process import utc_now
from buildpool.settings import GatewaySettings
from daemons import Silent, until
from unit.gateway.requests import a_request
from unit.gateway.xds.configs import a_config

HELLO, SESSION = f"{CONTROL}ListWorkers", f"{CONTROL}Session"
POOL = a_config()


class OnePool:
    """A pool with one builder, where the router has its ``Directory``."""

    def __init__(self) -> None:
        self.configs: Mapping[PoolKey, PoolConfig] = {POOL.key: POOL}
        self.synced = asyncio.Event()
        self.synced.set()
        self.fails = asyncio.Event()
        self.there: tuple[Target, ...] = (Target("ci-builder-0", "uid", "127.0.0.1:1"),)
        self.tell: Callable[[PoolKey], None] = lambda _: None
        self.is_subscribed = False

    def builders(self, pool: PoolKey) -> tuple[Target, ...]:
        return self.there

    def trouble(self, address: str) -> None:
        return None

    def subscribe(self, callback: Callable[[PoolKey], None]) -> None:
        self.tell, self.is_subscribed = callback, True
        callback(POOL.key)

    async def run(self) -> None:
        await self.fails.wait()
        raise RuntimeError("it has failed")


class FirstStatus:
    """Where the router has its ``StatusWriter``: what it would write first."""

    def __init__(self) -> None:
        self.written: list[GatewayStatus] = []

    def changed(self, pool: PoolKey) -> None:
        return

    async def run(self, entry: Entry) -> None:
        self.written.append(entry(POOL.key))
        await asyncio.Event().wait()


class Slow(Silent):
    """A daemon that takes its time before it says what it runs."""

    def __init__(self, *refs: str) -> None:
        self.is_asked = asyncio.Event()
        self.says = asyncio.Event()
        self._refs = refs

    async def snapshot(self) -> tuple[RunningBuild, ...]:
        self.is_asked.set()
        await self.says.wait()
        return tuple(RunningBuild(ref, None) for ref in self._refs)

    async def events(self) -> AsyncIterator[Any]:
        await asyncio.Event().wait()
        yield


class RouterLab:
    """A router, and Envoy's questions to it."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / "router.db"
        settings = GatewaySettings(
            namespace="buildpool-system",
            identity="router",
            drain_time=timedelta(days=1),
            port=1,
            sockets=folder,
            memory_file=self.file,
            health_port=0,
        )
        self.source = OnePool()
        self.status = FirstStatus()
        self.router = Router(settings, self.source, self.status, GatewayMetrics())
        self.stop = asyncio.Event()
        self.running = asyncio.ensure_future(self.router.run(self.stop))
        self._channel = grpc.aio.insecure_channel(f"unix:{folder / ROUTER_SOCKET}")
        self._processor = ext_proc_grpc.ExternalProcessorStub(self._channel)

    async def asks(self, path: str, number: int) -> grpc.aio.StreamStreamCall:
        """A request on the connection of this number."""
        asked = self._processor.Process()
        await asked.write(a_request(path, number=number, peer=f"127.0.0.1:{number}"))
        return asked

    async def ended(self) -> None:
        """Until the process has ended, and all of its conversations."""
        await asyncio.gather(self.running, return_exceptions=True)
        await self._channel.close()
        await asyncio.sleep(0.1)

    def noted(self) -> set[str]:
        """The connections of which the next process knows."""
        homes = ConnectionStore(self.file, now=utc_now()).recall(POOL.key)
        return {home.connection for home in homes}


@pytest.fixture(autouse=True)
def _haste(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "Daemon", lambda *_: Silent())
    monkeypatch.setattr(module, "HEARING_SECONDS", 0.1)
    monkeypatch.setattr(module, "GRACE_SECONDS", 1.0)
    monkeypatch.setattr("buildpool.gateway.slots.scheduler.SOLVE_PATIENCE_SECONDS", 0.5)


@pytest.mark.parametrize("is_signal", [True, False])
async def test_when_a_router_ends_the_next_one_knows_who_builds_and_of_nobody_who_waits(
    tmp_path: Path, is_signal: bool
) -> None:
    lab = RouterLab(tmp_path)
    await lab.router.answers.wait()
    building = await lab.asks(HELLO, 1)
    await building.read()
    session = await lab.asks(SESSION, 1)
    await session.read()
    pool = lab.router.pools.find(POOL.key)
    assert pool is not None
    (name,) = lab.noted()
    await pool.scheduler.begin(name, "buildpool://ann", None, "ref")
    pool.scheduler.end(name, "ref")  # it has built, and only its session holds its slot
    waiting = [await lab.asks(HELLO, number) for number in range(2, 8)]
    async with asyncio.timeout(5):
        while pool.scheduler.backlog.waiting < len(waiting):  # noqa: ASYNC110 - a test's own look
            await asyncio.sleep(0.01)
    (lab.stop if is_signal else lab.source.fails).set()
    await lab.ended()
    assert lab.noted() == {name}


async def test_what_is_being_answered_when_a_signal_comes_is_answered(tmp_path: Path) -> None:
    lab = RouterLab(tmp_path)
    await lab.router.answers.wait()
    hello = await lab.asks(HELLO, 1)
    await hello.read()
    session = await lab.asks(SESSION, 1)  # waits a little for the solve that it belongs to
    await asyncio.sleep(0.1)
    lab.stop.set()
    async with asyncio.timeout(5):
        answer = await session.read()
        assert not lab.running.done(), "it waits for what is being answered"
        await lab.ended()
    assert isinstance(answer, ext_proc.ProcessingResponse)
    assert answer.HasField("request_headers")
    assert len(lab.noted()) == 1


async def test_a_build_that_runs_is_known_though_the_pool_is_told_of_before_its_builders(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    noted = ConnectionStore(tmp_path / "router.db", now=utc_now())
    noted.keep(POOL.key, Home("1@a", "buildpool://ann", "uid", "ref"), now=utc_now())
    daemon = Slow("ref")
    daemon.says.set()
    monkeypatch.setattr(module, "Daemon", lambda *_: daemon)
    lab = RouterLab(tmp_path)
    builders, lab.source.there = lab.source.there, ()
    lab.source.synced.clear()
    await until(lambda: lab.source.is_subscribed, "the router listens")
    lab.source.tell(POOL.key)
    lab.source.there = builders
    lab.source.tell(POOL.key)
    lab.source.synced.set()
    await until(lambda: lab.status.written, "all is known")
    pool = lab.router.pools.find(POOL.key)
    assert pool is not None
    assert pool.scheduler.connections.is_building("1@a")
    assert lab.noted() == {"1@a"}
    lab.stop.set()
    await lab.ended()


async def test_nothing_is_reported_before_daemons_have_said_who_builds_in_the_slot_of_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "HEARING_SECONDS", 10.0)
    refs = ("one", "two", "three")
    noted, now = ConnectionStore(tmp_path / "router.db", now=utc_now()), utc_now()
    for ref in refs:
        noted.keep(POOL.key, Home("1@a", "buildpool://ann", "uid", ref), now=now)
    daemon = Slow(*refs)
    monkeypatch.setattr(module, "Daemon", lambda *_: daemon)
    lab = RouterLab(tmp_path)
    await lab.router.answers.wait()
    await daemon.is_asked.wait()
    assert lab.status.written == []
    daemon.says.set()
    await until(lambda: lab.status.written, "it is reported")
    assert [entry.shared for entry in lab.status.written] == [2]
    lab.stop.set()
    await lab.ended()


async def test_a_daemon_that_never_answers_does_not_keep_the_router_from_reporting(
    tmp_path: Path,
) -> None:
    lab = RouterLab(tmp_path)
    await until(lambda: lab.status.written, "it is reported")
    lab.stop.set()
    await lab.ended()
