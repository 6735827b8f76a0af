"""Real servers on loopback: registries of every temper, token services, and what is neither."""

from __future__ import annotations

import asyncio
import socket
import ssl
import threading
from base64 import b64encode
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import cache, partial
from pathlib import Path

from aiohttp import web

from buildpool import preflight
from buildpool.core.observed.cache import CacheTarget, Credentials
from buildpool.core.pki import Bundle, CertificateRequest, KeyPair, Use, issue, issue_authority

DAY = timedelta(days=1)
JOE = Credentials("joe", "swordfish")
TOKEN = "a-token-that-nobody-may-see"
REPOSITORY = "team/cache"
TLS_HANDSHAKE = b"\x16"
inspect = partial(preflight.inspect, reach=preflight.Reach(never=()))
"""As the operator asks, but loopback, too: these servers listen there."""
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@cache
def an_authority(name: str = "A", now: datetime = datetime.now(UTC)) -> KeyPair:  # noqa: B008
    return issue_authority(name, now=now, lifetime=30 * DAY)


def a_certificate(
    *, authority: KeyPair | None = None, issued: datetime | None = None, **overrides: object
) -> Bundle:
    request = CertificateRequest(
        use=Use.SERVER, common_name="registry", lifetime=DAY, dns_names=("localhost",)
    )
    now = issued or datetime.now(UTC)
    return issue(authority or an_authority(), replace(request, **overrides), now=now)


def a_client(**overrides: object) -> Bundle:
    return a_certificate(use=Use.CLIENT, dns_names=(), **overrides)


def a_target(host: str, **overrides: object) -> CacheTarget:
    trust = an_authority().certificate
    return replace(CacheTarget(host, REPOSITORY, trust=trust), **overrides)


@dataclass
class Registry:
    """A registry that keeps nothing. ``answers`` replaces what it says to a method."""

    answers: dict[str, Handler] = field(default_factory=dict)
    admits: Callable[[web.Request], web.Response | None] = lambda _: None
    """Says who is turned away, and how."""
    seen: list[str] = field(default_factory=list)
    authorizations: list[str | None] = field(default_factory=list)

    async def __call__(self, request: web.Request) -> web.StreamResponse:
        what = "BASE" if request.path == "/v2/" else request.method
        self.seen.append(f"{request.method} {request.path}")
        self.authorizations.append(request.headers.get("Authorization"))
        refusal = self.admits(request)
        if refusal is not None:
            return refusal
        if what in self.answers:
            return await self.answers[what](request)
        if what == "BASE":
            return web.json_response({})
        if what == "POST":
            assert request.path.startswith(f"/v2/{REPOSITORY}/")
            where = f"{request.path}1?_state=a%3D%2B"
            return web.Response(status=202, headers={"Location": where})
        if what == "PUT":
            assert request.query["_state"] == "a=+"
            assert request.query["digest"].startswith("sha256:44136fa3")
            assert await request.read() == b"{}"
            return web.Response(status=201)
        return web.Response(status=404)


def says(status: int, body: str = "", **headers: str) -> Handler:
    """Answers always the same."""

    async def answer(_: web.Request) -> web.Response:
        kind = {"Content-Type": "application/json"} if body.startswith("{") else {}
        spelled = {name.replace("_", "-"): value for name, value in headers.items()}
        return web.Response(status=status, body=body.encode(), headers=kind | spelled)

    return answer


def refuses(code: str, message: str = "no") -> str:
    return f'{{"errors": [{{"code": "{code}", "message": "{message}"}}]}}'


def by_password(credentials: Credentials = JOE) -> Callable[[web.Request], web.Response | None]:
    pair = f"{credentials.username}:{credentials.password}"
    wanted = f"Basic {b64encode(pair.encode()).decode()}"

    def admits(request: web.Request) -> web.Response | None:
        if request.headers.get("Authorization") == wanted:
            return None
        echo = f'{{"errors": "{request.headers.get("Authorization")}"}}'
        challenge = {"WWW-Authenticate": 'Basic realm="registry"'}
        return web.Response(status=401, headers=challenge, text=echo)

    return admits


def by_token(realm: str, **rest: str) -> Callable[[web.Request], web.Response | None]:
    challenge = ",".join(f'{key}="{value}"' for key, value in {"realm": realm, **rest}.items())

    def admits(request: web.Request) -> web.Response | None:
        if request.headers.get("Authorization") == f"Bearer {TOKEN}":
            return None
        return web.Response(status=401, headers={"WWW-Authenticate": f"Bearer {challenge}"})

    return admits


def a_context(
    certificate: Bundle, folder: Path, *, clients: KeyPair | None, newest: ssl.TLSVersion
) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.maximum_version = newest
    file = folder / "server.pem"
    file.write_bytes(certificate.pair.certificate + certificate.pair.key)
    context.load_cert_chain(file)
    if clients is not None:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(cadata=clients.certificate.decode())
    return context


@contextmanager
def refusing(context: ssl.SSLContext) -> Iterator[str]:
    """Takes handshakes and serves nobody; who comes without TLS is told so, as Go does it.

    In a thread, because OpenSSL on a socket says why it refuses; asyncio just hangs up.
    """
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            while True:
                connection, _ = server.accept()
                with connection:
                    if over.is_set():
                        return
                    if connection.recv(1, socket.MSG_PEEK) != TLS_HANDSHAKE:
                        connection.recv(65536)
                        connection.sendall(b"HTTP/1.0 400 Bad Request\r\n\r\nnot HTTPS")
                        continue
                    with suppress(OSError), context.wrap_socket(connection, server_side=True):
                        pass

        over = threading.Event()
        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield f"localhost:{server.getsockname()[1]}"
        finally:
            over.set()
            socket.create_connection(server.getsockname()).close()
            thread.join()


@asynccontextmanager
async def serving(
    handler: Handler,
    *,
    certificate: Bundle | None = None,
    clients: KeyPair | None = None,
    newest: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3,
    folder: Path | None = None,
) -> AsyncIterator[str]:
    """Serves HTTP for the length of a block, at the ``host:port`` that it gives."""
    context = None
    if certificate is not None:
        assert folder is not None
        context = a_context(certificate, folder, clients=clients, newest=newest)
    runner = web.ServerRunner(web.Server(handler))
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context)
        await site.start()
        yield f"localhost:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


@asynccontextmanager
async def talking(first_words: bytes | None, *, hang_up: bool = True) -> AsyncIterator[str]:
    """Serves something that is not HTTP; None: it says nothing at all."""
    over = asyncio.Event()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        if first_words is not None:
            writer.write(first_words)
        if not hang_up:
            await over.wait()
        writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    try:
        yield f"localhost:{server.sockets[0].getsockname()[1]}"
    finally:
        over.set()
        server.close()
        await server.wait_closed()
