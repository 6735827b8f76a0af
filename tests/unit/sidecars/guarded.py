"""A guard between real TLS servers on loopback, which play the registry and the keeper."""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from itertools import count
from pathlib import Path

import aiohttp
from aiohttp import web

from buildpool.core.pki import Bundle, KeyPair, issue, issue_authority
from buildpool.sidecars.guard.server import GuardSettings, guard
from unit.core.pki.certificates import CLIENT, DAY, SERVER

NOW = datetime.now(UTC)  # OpenSSL verifies against the real clock
A = issue_authority("builds/a", now=NOW, lifetime=DAY)
B = issue_authority("builds/b", now=NOW, lifetime=DAY)

DIGEST = "sha256:" + 64 * "a"
MANIFEST = "/v2/team/app/manifests/main"
BLOB = f"/v2/team/app/blobs/{DIGEST}"
OCI = "application/vnd.oci.image.manifest.v1+json"
BODY = b'{"schemaVersion": 2}'
OF_BODY = {
    "Content-Type": OCI,
    "Content-Length": str(len(BODY)),
    "Docker-Content-Digest": DIGEST,
}
numbers = count()


def a_server(authority: KeyPair = A) -> Bundle:
    return issue(authority, SERVER, now=NOW)


def a_client(authority: KeyPair = A) -> Bundle:
    return issue(authority, CLIENT, now=NOW)


CI = a_client()
HUNG_UP = (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError)
"""What a refusal looks like: a client of TLS 1.3 is done before the server has looked at it."""


def mount(folder: Path, bundle: Bundle) -> Path:
    """Put files into a folder as the kubelet does: all of them change at the same moment."""
    version = folder / f"..{next(numbers)}"
    version.mkdir(parents=True)
    contents = (bundle.trust, bundle.pair.certificate, bundle.pair.key)
    for name, content in zip(("ca.pem", "cert.pem", "key.pem"), contents, strict=True):
        (version / name).write_bytes(content)
        if not (folder / name).is_symlink():
            (folder / name).symlink_to(f"..data/{name}")
    (folder / "..new").symlink_to(version.name)
    (folder / "..new").rename(folder / "..data")
    return folder


def serving_with(folder: Path) -> ssl.SSLContext:
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    made.verify_mode = ssl.CERT_REQUIRED
    made.load_verify_locations(folder / "ca.pem")
    made.load_cert_chain(folder / "cert.pem", folder / "key.pem")
    return made


def asking_with(folder: Path | None) -> ssl.SSLContext:
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    made.load_verify_locations(cadata=A.certificate.decode())
    if folder:
        made.load_cert_chain(folder / "cert.pem", folder / "key.pem")
    return made


def a_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return taken.getsockname()[1]


@dataclass
class Cache:
    """The registry or the keeper of a managed cache: answers by path, and notes the requests."""

    folder: Path
    port: int = field(default_factory=a_port)
    answers: dict[str, web.Response] = field(default_factory=dict)
    requests: list[web.BaseRequest] = field(default_factory=list)
    connections: list[tuple[str, int]] = field(default_factory=list)
    """From where each of the requests came."""
    asked: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def address(self) -> str:
        return f"localhost:{self.port}"

    @asynccontextmanager
    async def serving(self, bundle: Bundle | None = None) -> AsyncIterator[None]:
        async def answer(request: web.BaseRequest) -> web.Response:
            self.requests.append(request)
            self.connections.append(request.transport.get_extra_info("peername"))
            self.asked.set()
            made = self.answers.get(request.rel_url.path, web.Response(status=404))
            return web.Response(status=made.status, headers=made.headers, body=made.body)

        folder = mount(self.folder, bundle or a_server())
        runner = web.ServerRunner(web.Server(answer, access_log=None), shutdown_timeout=0.1)
        await runner.setup()
        tls = serving_with(folder)
        await web.TCPSite(runner, "127.0.0.1", self.port, ssl_context=tls).start()
        try:
            yield
        finally:
            await runner.cleanup()


@dataclass
class Guarded:
    """A guard before a registry and a keeper, and a buildkitd that asks it."""

    folder: Path
    registry: Cache
    keeper: Cache
    settings: GuardSettings

    @asynccontextmanager
    async def running(self, **overrides: object) -> AsyncIterator[None]:
        running = asyncio.create_task(guard(replace(self.settings, **overrides)))
        try:
            yield
        finally:
            running.cancel()
            with suppress(asyncio.CancelledError):
                await running

    @asynccontextmanager
    async def ready(self, **overrides: object) -> AsyncIterator[None]:
        """All three, the guard's port being open."""
        async with self.registry.serving(), self.keeper.serving(), self.running(**overrides):
            await self.opened()
            yield

    async def is_open(self) -> bool:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", self.settings.port)
        except OSError:
            return False
        writer.close()
        await writer.wait_closed()
        return True

    async def opened(self) -> None:
        async with asyncio.timeout(5):
            while True:
                if await self.is_open():
                    return
                await asyncio.sleep(0.01)

    async def ask(
        self, path: str, method: str = "GET", client: Bundle | None = CI, **options: object
    ) -> tuple[aiohttp.ClientResponse, bytes]:
        tls = asking_with(mount(self.folder / "buildkitd", client) if client else None)
        url = f"https://localhost:{self.settings.port}{path}"
        async with (
            asyncio.timeout(5),
            aiohttp.ClientSession() as session,
            session.request(method, url, ssl=tls, allow_redirects=False, **options) as response,
        ):
            return response, await response.read()


def error(body: bytes) -> tuple[str, str]:
    [found] = json.loads(body)["errors"]
    return found["code"], found["message"]


@asynccontextmanager
async def a_crashing_registry(port: int) -> AsyncIterator[asyncio.Semaphore]:
    """Accepts connections and breaks them; counts them."""
    connections = asyncio.Semaphore(0)

    def broken(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connections.release()
        writer.close()

    server = await asyncio.start_server(broken, "127.0.0.1", port)
    try:
        yield connections
    finally:
        server.close()
        await server.wait_closed()


@asynccontextmanager
async def a_silent_server(port: int) -> AsyncIterator[None]:
    """Accepts connections and never says a word."""
    writers = []
    server = await asyncio.start_server(lambda _, writer: writers.append(writer), "127.0.0.1", port)
    try:
        yield
    finally:
        for writer in writers:
            writer.close()
        server.close()
        await server.wait_closed()
