"""The guard between real TLS servers on loopback, which play the registry and the keeper."""

from __future__ import annotations

import asyncio
import json
import logging
import socket
import ssl
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web

from buildpool.core.pki import Bundle, KeyPair, issue, issue_authority
from buildpool.sidecars.guard.server import PAUSE, GuardSettings, guard
from buildpool.sidecars.guard.upstream import PASSED_ON, Wanted
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


@pytest.fixture
def guarded(tmp_path):
    registry, keeper = Cache(tmp_path / "registry"), Cache(tmp_path / "keeper")
    registry.answers[MANIFEST] = web.Response(body=BODY, headers=OF_BODY)
    registry.answers[BLOB] = web.Response(body=BODY, headers=OF_BODY)
    keeper.answers["/check/team/app"] = web.Response()
    settings = GuardSettings(
        registry=registry.address,
        keeper=keeper.address,
        server_certificates=mount(tmp_path / "server", a_server()),
        client_certificates=mount(tmp_path / "client", a_client()),
        port=a_port(),
    )
    return Guarded(tmp_path, registry, keeper, settings)


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


@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_the_manifest_of_a_whole_cache_passes_as_it_is(guarded, method):
    async with guarded.ready():
        accept = [("Accept", OCI), ("Accept", "text/plain, */*")]
        response, body = await guarded.ask(f"{MANIFEST}?ns=ci-cache", method, headers=accept)
    assert response.status == 200
    assert {name: response.headers[name] for name in PASSED_ON} == OF_BODY
    assert body == (BODY if method == "GET" else b"")
    [check], [read] = guarded.keeper.requests, guarded.registry.requests
    assert check.raw_path == "/check/team/app?reference=main"
    assert (read.method, read.raw_path) == (method, MANIFEST)
    assert read.headers.getall("Accept") == [OCI, "text/plain, */*"]
    assert read.headers["Accept-Encoding"] == "identity"  # or the length would be another


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ('{"reason": "absent"}', "the cache is absent"),
        (
            '{"reason": "damaged", "message": "blob sha256:bb is missing"}',
            "the cache is damaged: blob sha256:bb is missing",
        ),
        ("404: Not Found", "the cache is absent or damaged"),
        ("", "the cache is absent or damaged"),
    ],
)
async def test_a_damaged_cache_is_not_there_for_buildkit(guarded, said, told):
    guarded.keeper.answers["/check/team/app"] = web.Response(status=404, text=said)
    async with guarded.ready():
        response, body = await guarded.ask(MANIFEST)
    assert response.status == 404
    assert error(body) == ("MANIFEST_UNKNOWN", told)
    assert not guarded.registry.requests


async def test_a_manifest_that_only_the_registry_misses_is_not_there(guarded):
    del guarded.registry.answers[MANIFEST]
    async with guarded.ready():
        response, _ = await guarded.ask(MANIFEST)
    assert response.status == 404


async def test_the_bytes_of_a_blob_are_to_be_had_from_the_registry(guarded):
    async with guarded.ready():
        response, body = await guarded.ask(f"{BLOB}?ns=ci-cache", headers={"Range": "bytes=5-"})
    assert response.status == 307
    assert response.headers["Location"] == f"https://{guarded.registry.address}{BLOB}"
    assert not body
    assert [request.method for request in guarded.registry.requests] == ["HEAD"]


async def test_what_is_to_be_known_of_a_blob_is_passed_on(guarded):
    async with guarded.ready():
        response, _ = await guarded.ask(BLOB, "HEAD")
    assert response.status == 200
    assert {name: response.headers[name] for name in PASSED_ON} == OF_BODY


async def test_a_blob_that_is_not_there_is_not_waited_for(guarded):
    del guarded.registry.answers[BLOB]
    async with guarded.ready():
        response, body = await guarded.ask(BLOB)
    assert response.status == 404
    assert error(body)[0] == "BLOB_UNKNOWN"


async def test_a_blob_that_the_registry_refuses_is_refused(guarded):
    guarded.registry.answers[BLOB] = web.Response(status=403, body=b"no")
    async with guarded.ready():
        response, body = await guarded.ask(BLOB)
    assert (response.status, body) == (403, b"")


async def test_a_blob_is_held_until_the_registry_is_back(guarded, caplog):
    caplog.set_level(logging.INFO)
    async with guarded.running(patience=timedelta(0)):
        await guarded.opened()
        async with a_crashing_registry(guarded.registry.port) as connections:
            asked = asyncio.create_task(guarded.ask(BLOB))
            for _ in range(5):  # long enough to be noted
                await connections.acquire()
        assert not asked.done()
        async with guarded.registry.serving():
            response, _ = await asked
    assert response.status == 307
    [note] = [record.message for record in caplog.records if "was held" in record.message]
    assert note.startswith(f"{BLOB} was held for ")
    assert note.endswith("s and then answered.")


async def test_a_blob_is_not_held_for_one_who_hung_up(guarded):
    async with guarded.running(patience=timedelta(0)):
        await guarded.opened()
        async with a_crashing_registry(guarded.registry.port) as connections:
            asked = asyncio.create_task(guarded.ask(BLOB))
            await connections.acquire()
            asked.cancel()
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(1.5 * PAUSE):
                    await connections.acquire()


async def test_a_registry_with_trouble_of_its_own_is_waited_for(guarded):
    well = guarded.registry.answers[BLOB]
    guarded.registry.answers[BLOB] = web.Response(status=503)
    async with guarded.ready():
        asked = asyncio.create_task(guarded.ask(BLOB))
        await guarded.registry.asked.wait()
        guarded.registry.answers[BLOB] = well
        response, _ = await asked
    assert response.status == 307


@pytest.mark.parametrize(
    ("path", "patience"), [(MANIFEST, "manifest_patience"), (BLOB, "blob_patience")]
)
async def test_patience_ends(guarded, path, patience):
    async with guarded.running(patience=timedelta(0), **{patience: timedelta(seconds=0.2)}):
        await guarded.opened()
        begin = time.monotonic()
        response, body = await guarded.ask(path)
    assert response.status == 503
    assert error(body)[0] == "UNAVAILABLE"
    assert 0.2 <= time.monotonic() - begin < 3


async def test_a_keeper_that_is_back_is_asked_again(guarded):
    async with guarded.registry.serving(), guarded.running():
        await guarded.opened()
        async with a_crashing_registry(guarded.keeper.port) as connections:
            asked = asyncio.create_task(guarded.ask(MANIFEST))
            await connections.acquire()
        async with guarded.keeper.serving():
            response, body = await asked
    assert (response.status, body) == (200, BODY)


@pytest.mark.parametrize("path", [MANIFEST, BLOB])
async def test_a_redirect_of_the_registry_is_not_followed(guarded, path):
    elsewhere = {"Location": f"https://{guarded.registry.address}/elsewhere"}
    guarded.registry.answers[path] = web.Response(status=307, headers=elsewhere)
    guarded.registry.answers["/elsewhere"] = web.Response(body=BODY)
    async with guarded.ready():
        response, _ = await guarded.ask(path)
    assert response.status == 502
    assert len(guarded.registry.requests) == 1


async def test_a_proxy_of_the_environment_is_not_used(guarded, monkeypatch):
    monkeypatch.setenv("HTTPS_PROXY", f"http://localhost:{a_port()}")
    async with guarded.ready():
        response, _ = await guarded.ask(BLOB)
    assert response.status == 307


async def test_the_beginning_of_the_api_is_answered(guarded):
    async with guarded.ready():
        response, body = await guarded.ask("/v2/")
    assert (response.status, json.loads(body)) == (200, {})


async def test_nothing_can_be_written(guarded):
    async with guarded.ready():
        for method in ("POST", "PUT", "PATCH", "DELETE", "OPTIONS"):
            response, body = await guarded.ask(MANIFEST, method)
            assert response.status == 405
            assert error(body)[0] == "UNSUPPORTED"
    assert not guarded.registry.requests + guarded.keeper.requests


async def test_another_path_is_not_there(guarded):
    async with guarded.ready():
        response, body = await guarded.ask("/v2/_catalog")
    assert response.status == 404
    assert error(body)[0] == "UNSUPPORTED"


STRANGE = (
    "/v2",
    "/v2/team/app/tags/list",
    "/v2/manifests/main",
    "/v2/Team/app/manifests/main",
    "/v2/team//app/manifests/main",
    "/v2/../app/manifests/main",
    "/v2/team/./app/manifests/main",
    "/v2/team/%2e%2e/app/manifests/main",
    "/v2/team/app/manifests/..",
    "/v2/team/app/manifests/main\n",
    "/v2/team/app/manifests/ma&in",
    "/v2/team/app/manifests/" + 129 * "a",
    "/v2/team/app/manifests/sha256:aa",
    "/v2/team/app/blobs/main",
    f"/v2/team/app/blobs/{DIGEST}/",
    f"/v2/team/app/blobs/{DIGEST.upper()}",
    f"/v2/{256 * 'a'}/manifests/main",
    f"https://elsewhere{MANIFEST}",
)


@pytest.mark.parametrize("path", STRANGE)
def test_strange_paths_are_nothing(path):
    assert Wanted.read(path) is None


@pytest.mark.parametrize(
    ("path", "name", "reference", "is_blob"),
    [
        (MANIFEST, "team/app", "main", False),
        (f"/v2/a/manifests/{DIGEST}", "a", DIGEST, False),
        (f"/v2/a.b/c__d/e--f/manifests/_X.{125 * '-'}", "a.b/c__d/e--f", f"_X.{125 * '-'}", False),
        ("/v2/manifests/manifests/blobs", "manifests", "blobs", False),
        (f"/v2/{255 * 'a'}/blobs/sha256:{64 * '0'}", 255 * "a", f"sha256:{64 * '0'}", True),
    ],
)
def test_proper_paths_are_understood(path, name, reference, is_blob):
    assert Wanted.read(path) == Wanted(path, name, reference, is_blob)


async def test_nobody_is_answered_without_a_certificate(guarded):
    async with guarded.ready():
        assert (await guarded.ask("/v2/"))[0].status == 200
        with pytest.raises(HUNG_UP):
            await guarded.ask("/v2/", client=None)


async def test_nobody_is_answered_with_a_certificate_of_another_authority(guarded):
    async with guarded.ready():
        with pytest.raises(HUNG_UP):
            await guarded.ask("/v2/", client=a_client(B))


async def test_probes_leave_nothing_in_the_log(guarded, caplog):
    async with guarded.ready():
        caplog.clear()
        caplog.set_level(logging.INFO)
        for said in (b"", b"GET /v2/ HTTP/1.1\r\n\r\n"):
            reader, writer = await asyncio.open_connection("localhost", guarded.settings.port)
            writer.write(said)
            if said:
                await reader.read()  # until it is hung up on
            writer.close()
            await writer.wait_closed()
        response, _ = await guarded.ask("/v2/")
    assert response.status == 200
    assert not caplog.records


async def test_a_certificate_renewed_by_another_authority_is_used(guarded):
    async with guarded.running(patience=timedelta(0), look_every=timedelta(0)):
        async with guarded.registry.serving(), guarded.keeper.serving():
            await guarded.opened()
            assert (await guarded.ask(MANIFEST))[0].status == 200
        renewed = a_server(B)
        async with guarded.registry.serving(renewed), guarded.keeper.serving(renewed):
            mount(guarded.settings.client_certificates, a_client(B))
            response, body = await guarded.ask(MANIFEST)
    assert (response.status, body) == (200, BODY)


async def test_connections_are_kept_until_the_certificate_is_renewed(guarded):
    async with guarded.ready(look_every=timedelta(0)):
        await guarded.ask(BLOB)
        await guarded.ask(BLOB)
        mount(guarded.settings.client_certificates, a_client(A))
        await guarded.ask(BLOB)
    first, second, third = guarded.registry.connections
    assert first == second != third


async def test_a_half_written_renewal_changes_nothing_until_it_is_complete(guarded, caplog):
    folder = guarded.settings.client_certificates
    async with guarded.ready(look_every=timedelta(0)):
        assert (await guarded.ask(BLOB))[0].status == 307
        key = (folder / "key.pem").read_bytes()
        (folder / "key.pem").write_bytes(a_client().pair.key)
        assert (await guarded.ask(BLOB))[0].status == 307
        assert "cannot be used" in caplog.text
        caplog.clear()
        (folder / "key.pem").write_bytes(key)
        assert (await guarded.ask(BLOB))[0].status == 307
    assert not caplog.text


async def test_without_a_certificate_it_starts_and_refuses(guarded):
    (guarded.settings.client_certificates / "cert.pem").unlink()
    async with guarded.ready(blob_patience=timedelta(0)):
        response, _ = await guarded.ask(BLOB)
    assert response.status == 503


async def test_the_port_opens_once_the_registry_accepts_connections(guarded):
    async with guarded.running():
        for _ in range(20):
            assert not await guarded.is_open()
            await asyncio.sleep(0.01)
        async with guarded.registry.serving():
            await guarded.opened()


async def test_the_port_opens_without_the_registry_when_patience_ends(guarded, caplog):
    begin = time.monotonic()
    async with guarded.running(patience=timedelta(seconds=0.2)):
        await guarded.opened()
    assert 0.2 <= time.monotonic() - begin < 3
    assert "accepts no connections" in caplog.text


async def test_the_end_is_clean_while_a_request_is_held(guarded):
    async with a_crashing_registry(guarded.registry.port) as connections:
        async with guarded.running(patience=timedelta(0)):
            await guarded.opened()
            asked = asyncio.create_task(guarded.ask(BLOB))
            await connections.acquire()
            begin = time.monotonic()
        assert time.monotonic() - begin < 3
        with pytest.raises(aiohttp.ClientError):
            await asked
    assert not await guarded.is_open()
