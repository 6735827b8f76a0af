"""What the gateway writes into the status of pools, to a real HTTP server that plays the API's."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import web
from kubernetes.aio.client import ApiClient, Configuration

from buildpool.core.api.status import GatewayStatus, QueueStatus
from buildpool.core.naming import PoolKey
from buildpool.gateway.reports import status as module
from buildpool.gateway.reports.status import MAX_CLIENTS, StatusWriter, queue_of
from buildpool.kube.cluster import Cluster
from buildpool.kube.metrics import RequestMetrics
from daemons import until
from samples import NOW

POD = "a-gateway"
POOL, OTHER = PoolKey("builds", "ci"), PoolKey("builds", "other")


class StatusLab:
    """A writer, the API server that it writes to, and what waits."""

    def __init__(self) -> None:
        self.waiting: dict[PoolKey, int] = {}
        self.written: list[tuple[str, list[dict[str, Any]]]] = []
        """The pools that were written, and their entries, in this order."""
        self.refuses: dict[str, int] = {}
        """The status with which writes for some pools are answered."""
        self.hangs: set[str] = set()
        """Pools for which writes are not answered."""
        self.stored: list[dict[str, Any]] = []
        """The pools as an earlier process left them."""
        self.writer: StatusWriter

    def entry(self, pool: PoolKey) -> GatewayStatus:
        waiting = self.waiting.get(pool, 0)
        return GatewayStatus(name=POD, waiting=waiting, since=NOW if waiting else None)

    def waits(self, pool: PoolKey, builds: int) -> None:
        """So many builds wait now."""
        self.waiting[pool] = builds
        self.writer.changed(pool)

    def count(self, pool: PoolKey) -> int:
        """How often a pool was written."""
        return sum(name == pool.name for name, _ in self.written)

    async def listed(self, _: web.Request) -> web.Response:
        return web.json_response({"metadata": {"resourceVersion": "1"}, "items": self.stored})

    async def applied(self, request: web.Request) -> web.Response:
        name, body = request.match_info["name"], await request.json()
        self.written.append((name, body["status"]["gateways"]))
        if name in self.hangs:
            await asyncio.Event().wait()
        return web.json_response(body, status=self.refuses.get(name, 200))


@pytest.fixture(autouse=True)
def _quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "GATHER_SECONDS", 0.001)
    monkeypatch.setattr(module, "SPACING_SECONDS", 0.01)


@asynccontextmanager
async def running(lab: StatusLab) -> AsyncIterator[StatusLab]:
    app = web.Application()
    root = "/apis/buildpool.dev/v1alpha1"
    app.router.add_get(f"{root}/buildkitpools", lab.listed)
    app.router.add_patch(f"{root}/namespaces/builds/buildkitpools/{{name}}/status", lab.applied)
    runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    host = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        async with ApiClient(Configuration(host=host)) as api:
            cluster = Cluster(api, RequestMetrics())
            lab.writer = StatusWriter(cluster, identity=POD, namespaces=(), clock=lambda: NOW)
            task = asyncio.create_task(lab.writer.run(lab.entry))
            yield lab
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
    finally:
        await runner.cleanup()


async def test_what_waits_is_written_and_removed_when_nothing_does() -> None:
    async with running(StatusLab()) as lab:
        lab.waits(POOL, 2)
        await until(lambda: lab.count(POOL) == 1, "it is written")
        lab.waits(POOL, 0)
        await until(lambda: lab.count(POOL) == 2, "it is removed")
    (name, (entry,)), (_, nothing) = lab.written
    assert (name, entry["name"], entry["waiting"]) == ("ci", POD, 2)
    assert nothing == []


async def test_a_pool_for_which_nothing_has_changed_is_not_written() -> None:
    async with running(StatusLab()) as lab:
        lab.waits(POOL, 0)
        lab.waits(OTHER, 1)
        await until(lambda: lab.count(OTHER) == 1, "the other one is written")
    assert lab.count(POOL) == 0


async def test_changes_that_come_while_a_pool_is_written_are_written_next() -> None:
    async with running(StatusLab()) as lab:
        for waiting in range(1, 200):
            lab.waits(POOL, waiting)
            await asyncio.sleep(0)
        await until(lambda: lab.written[-1:] != [] and last(lab) == 199, "the last one is written")
    assert lab.count(POOL) < 50


def last(lab: StatusLab) -> int:
    """How many builds wait, as was written last."""
    return int(lab.written[-1][1][0]["waiting"])


async def test_a_pool_whose_status_cannot_be_written_holds_up_no_other() -> None:
    lab = StatusLab()
    lab.refuses["ci"] = 403
    async with running(lab):
        lab.waits(POOL, 1)
        await until(lambda: lab.count(POOL) == 1, "it is refused")
        for waiting in (1, 2, 3):
            lab.waits(OTHER, waiting)
            await until(lambda: lab.count(OTHER) == waiting, "the other one is written")  # noqa: B023
    assert lab.count(POOL) == 1, "all of that before it was tried again"


async def test_a_write_that_is_not_answered_holds_up_no_other_pool() -> None:
    lab = StatusLab()
    lab.hangs.add("ci")
    async with running(lab):
        lab.waits(POOL, 1)
        await until(lambda: lab.count(POOL) == 1, "it is under way")
        for waiting in (1, 2, 3):
            lab.waits(OTHER, waiting)
            await until(lambda: lab.count(OTHER) == waiting, "the other one is written")  # noqa: B023


async def test_a_write_that_failed_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RETRY_SECONDS", 0.01)
    lab = StatusLab()
    lab.refuses["ci"] = 500
    async with running(lab):
        lab.waits(POOL, 1)
        await until(lambda: lab.count(POOL) == 3, "it is tried again")
        del lab.refuses["ci"]
        tries = lab.count(POOL)
        await until(lambda: lab.count(POOL) > tries, "it is written")


async def test_what_an_earlier_process_of_the_pod_left_is_put_right() -> None:
    lab = StatusLab()
    for name, pod in (("ci", POD), ("other", "another-pod")):
        metadata = {"namespace": "builds", "name": name}
        entries = [{"name": pod, "waiting": 3, "since": "2026-01-01T00:00:00Z"}]
        lab.stored.append({"metadata": metadata, "status": {"gateways": entries}})
    async with running(lab):
        await until(lambda: lab.written != [], "it is put right")
    assert lab.written == [("ci", [])]


def test_the_queue_names_clients_of_which_something_waits() -> None:
    assert queue_of({"ci": 2, "bob": 0, "anna": 1}) == (
        QueueStatus(client="anna", waiting=1),
        QueueStatus(client="ci", waiting=2),
    )
    assert queue_of({}) == ()
    many = queue_of({f"client-{n}": 1 for n in range(MAX_CLIENTS + 1)})
    GatewayStatus(name="one", queue=many)
