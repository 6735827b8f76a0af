"""Requests against a real HTTP server that answers badly, late, or not at all."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import unquote

import pytest
from aiohttp import web
from kubernetes.aio.client import ApiClient, Configuration
from kubernetes.aio.config import ConfigException

from buildpool.core.errors import (
    KubernetesError,
    NotFoundError,
    RefusedError,
    UnavailableError,
)
from buildpool.core.objects.refs import Ref
from buildpool.kube.cluster import Cluster
from buildpool.kube.metrics import RequestMetrics

POD = Ref("Pod", "builds", "ci-builder-0")
HANG_UP, SAY_NOTHING, NO_JSON = -1, -2, -3


class Server:
    """Answers with one status after the other, the last one for ever."""

    def __init__(self, *statuses: int, said: str = '{"message": "so it is"}') -> None:
        self._statuses = statuses
        self._said = said
        self.connections: list[object] = []
        """Of each request, the connection on which it came."""
        self.paths: list[str] = []
        """Of each request, its path and query as they were sent."""
        self.asked = asyncio.Event()

    async def answer(self, request: web.Request) -> web.Response:
        self.connections.append(request.transport)
        self.paths.append(request.raw_path)
        self.asked.set()
        status = self._statuses[min(len(self.connections), len(self._statuses)) - 1]
        if status == SAY_NOTHING:
            await asyncio.sleep(3600)
        if status == HANG_UP and request.transport:
            request.transport.close()
        if status == NO_JSON:
            return web.Response(text="<html>Please log in</html>")
        return web.Response(text=self._said, status=max(status, 200))


@asynccontextmanager
async def seen_by(server: Server) -> AsyncIterator[Cluster]:
    """The server, as a ``Cluster`` sees it."""
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", server.answer)
    runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    try:
        async with ApiClient(Configuration(host=f"http://127.0.0.1:{port}")) as api:
            yield Cluster(api, RequestMetrics())
    finally:
        await runner.cleanup()


async def test_a_request_that_is_put_off_is_tried_again() -> None:
    server = Server(429, 503, 200)
    async with seen_by(server) as cluster:
        assert await cluster.get(POD) == {"message": "so it is"}
    assert len(server.connections) == 3


@pytest.mark.parametrize("status", [500, 502, 504])
async def test_an_error_of_the_api_server_is_told_at_once(status: int) -> None:
    server = Server(status)
    async with seen_by(server) as cluster:
        with pytest.raises(UnavailableError, match="so it is"):
            await cluster.get(POD)
    assert len(server.connections) == 1


@pytest.mark.parametrize(
    ("message", "kind"),
    {
        "failed to create typed patch object (builds/ci-builder-0; apps/v1, Kind=Deployment): "
        ".spec.template.spec.affinity.nodeAfinity: field not declared in schema": RefusedError,
        "failed to convert new object (builds/ci-builder-0; apps/v1, Kind=Deployment) to proper "
        "version: json: cannot unmarshal number": RefusedError,
        "failed to create typed live object (builds/ci; v1, Kind=Service): x": UnavailableError,
        'Internal error occurred: failed calling webhook "x": EOF': UnavailableError,
    }.items(),
)
async def test_what_is_misspelt_is_refused_though_the_api_server_calls_it_its_own_error(
    message: str, kind: type[KubernetesError]
) -> None:
    said = {"kind": "Status", "status": "Failure", "message": message, "code": 500}
    async with seen_by(Server(500, said=json.dumps(said))) as cluster:
        with pytest.raises(kind, match=re.escape(message)):
            await cluster.apply({"kind": "Pod", "metadata": {"name": "a", "namespace": "b"}})


def a_404(name: str = POD.name, *, reason: str = "NotFound", kind: str = "Status") -> str:
    """As an API server says it of an object."""
    details = {"name": name, "kind": "pods"}
    return json.dumps({"kind": kind, "message": "no", "reason": reason, "details": details})


async def test_what_the_api_server_says_does_not_exist_is_not_there() -> None:
    async with seen_by(Server(404, said=a_404())) as cluster:
        assert await cluster.get(POD) is None


UNSERVED = {
    "an unknown path": "404 page not found\n",
    "another object": a_404("builds"),
    "no object": json.dumps({"kind": "Status", "reason": "NotFound", "details": {}}),
    "odd details": json.dumps({"kind": "Status", "reason": "NotFound", "details": [POD.name]}),
    "another reason": a_404(reason="Expired"),
    "no Status": a_404(kind="Pod"),
    "no mapping": "[]",
}


@pytest.mark.parametrize("said", UNSERVED.values(), ids=UNSERVED.keys())
async def test_any_other_404_says_nothing_of_an_object(said: str) -> None:
    async with seen_by(Server(404, said=said)) as cluster:
        with pytest.raises(UnavailableError, match="is not served"):
            await cluster.get(POD)
        await cluster.delete(POD, uid="1")
        with pytest.raises(NotFoundError):
            await cluster.patch(POD, {})


@pytest.mark.parametrize("name", ["", ".", "..", "../../secrets/x", "a/b", "a%2fb", "%2e%2e"])
async def test_a_name_that_no_object_can_have_is_asked_nobody_about(name: str) -> None:
    """Whoever writes a ReplicaSet names its owner as they like."""
    server = Server(200)
    async with seen_by(server) as cluster:
        assert await cluster.get(POD._replace(name=name)) is None
    assert server.paths == []


@pytest.mark.parametrize("name", ["a?watch=1", "a#b", "a b", "ci-ä", "a\\..\\b", "system:a"])
async def test_no_name_is_more_than_the_last_part_of_a_path(name: str) -> None:
    server = Server(200)
    async with seen_by(server) as cluster:
        await cluster.get(POD._replace(name=name))
    (path,) = server.paths
    assert unquote(path.removeprefix("/api/v1/namespaces/builds/pods/")) == name
    assert not set("?#") & set(path)


async def test_a_connection_that_ends_is_not_an_answer() -> None:
    async with seen_by(Server(HANG_UP)) as cluster:
        with pytest.raises(UnavailableError):
            await cluster.patch(POD, {})


async def test_a_connection_without_an_answer_is_never_used_again() -> None:
    server = Server(200, SAY_NOTHING, 200)
    async with seen_by(server) as cluster:
        await cluster.get(POD)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await cluster.get(POD)
        await cluster.get(POD)
    first, dead, new = server.connections
    assert first is dead
    assert new is not dead


async def test_once_cut_no_request_is_waited_for_and_none_is_sent() -> None:
    server = Server(SAY_NOTHING)
    async with seen_by(server) as cluster:
        waiting = asyncio.create_task(cluster.get(POD))
        await server.asked.wait()
        cluster.cut()
        async with asyncio.timeout(1):
            with pytest.raises(UnavailableError):
                await waiting
            with pytest.raises(UnavailableError, match="cut"):
                await cluster.get(POD)
    assert len(server.connections) == 1


async def test_nothing_is_sent_while_nobody_may_ask() -> None:
    may_ask = False
    server = Server(200)
    async with seen_by(server) as cluster:
        cluster.only_while(lambda: may_ask)
        with pytest.raises(UnavailableError, match="may lead no longer"):
            await cluster.get(POD)
        assert not server.connections
        may_ask = True
        await cluster.get(POD)


async def test_what_is_no_json_is_not_an_answer() -> None:
    async with seen_by(Server(NO_JSON)) as cluster:
        with pytest.raises(UnavailableError, match="JSONDecodeError"):
            await cluster.get(POD)


@pytest.mark.parametrize(
    "trouble", [PermissionError("no"), ConfigException("Token file exists but empty.")]
)
async def test_a_token_that_cannot_be_read_ends_nobody(trouble: Exception) -> None:
    server = Server(200)

    def refresh(_: Configuration) -> None:
        raise trouble

    async with seen_by(server) as cluster:
        cluster._api.configuration.api_key["BearerToken"] = "bearer"
        cluster._api.configuration.refresh_api_key_hook = refresh
        watch = cluster.watched("Pod", "", {}, version="1", duration=1, inactivity=1.0)
        with pytest.raises(UnavailableError, match=type(trouble).__name__):
            await cluster.get(POD)
        with pytest.raises(UnavailableError, match=type(trouble).__name__):
            await anext(aiter(watch))
    assert server.connections == []
