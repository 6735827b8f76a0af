"""The keeper as a program: its port, its certificates, its answers. Real sockets, real TLS."""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from yarl import URL

from buildpool.core.observed.usage import Usage
from buildpool.core.pki import Bundle, issue, issue_authority
from buildpool.sidecars.keeper.server import KeeperSettings, keep
from gateway.ports import free_port
from unit.core.pki.certificates import CLIENT, DAY, SERVER
from unit.sidecars import stored
from unit.sidecars.stored import Stored, digest_of

STARTED = datetime.now(UTC)  # OpenSSL verifies against the real clock
A = issue_authority("builds/a", now=STARTED, lifetime=DAY)
B = issue_authority("builds/b", now=STARTED, lifetime=DAY)
PATIENCE = 20


def mount(folder: Path, bundle: Bundle) -> Path:
    folder.mkdir()
    (folder / "ca.pem").write_bytes(bundle.trust)
    (folder / "cert.pem").write_bytes(bundle.pair.certificate)
    (folder / "key.pem").write_bytes(bundle.pair.key)
    return folder


@dataclass
class Keeping:
    """A keeper that runs, and the storage it looks after."""

    stored: Stored
    settings: KeeperSettings
    client: ssl.SSLContext

    async def get(self, path: str, client: ssl.SSLContext | None = None) -> tuple[int, Any]:
        url = f"https://localhost:{self.settings.port}{path}"
        async with (
            aiohttp.ClientSession() as session,
            session.get(url, ssl=client or self.client) as answer,
        ):
            return answer.status, await answer.json()

    async def knock(self) -> None:
        """As a TCP probe does."""
        _, writer = await asyncio.open_connection("127.0.0.1", self.settings.port)
        writer.close()
        await writer.wait_closed()

    async def is_open(self) -> bool:
        with suppress(OSError):
            await self.knock()
            return True
        return False

    async def until_open(self) -> None:
        async with asyncio.timeout(PATIENCE):
            while not await self.is_open():  # noqa: ASYNC110 - another program's port
                await asyncio.sleep(0.01)


def a_client(folder: Path) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=folder / "ca.pem")
    context.load_cert_chain(folder / "cert.pem", folder / "key.pem")
    return context


@asynccontextmanager
async def a_registry(port: int) -> AsyncIterator[None]:
    """Accepts connections, which is all that the keeper wants of it."""

    async def hang_up(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    server = await asyncio.start_server(hang_up, "127.0.0.1", port)
    async with server:
        yield


@asynccontextmanager
async def keeping(
    tmp_path: Path, *, interval: timedelta = timedelta(milliseconds=20)
) -> AsyncIterator[Keeping]:
    settings = KeeperSettings(
        storage=tmp_path / "storage",
        capacity=10**9,
        retention=14 * DAY,
        grace=timedelta(hours=2),
        certificates=mount(tmp_path / "server", issue(A, SERVER, now=STARTED)),
        port=free_port(),
        registry_port=free_port(),
        interval=interval,
        clock=lambda: stored.NOW,
    )
    settings.storage.mkdir()
    client = a_client(mount(tmp_path / "client", issue(A, CLIENT, now=STARTED)))
    task = asyncio.create_task(keep(settings))
    try:
        yield Keeping(Stored(settings.storage), settings, client)
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


@pytest.fixture
async def keeper(tmp_path: Path) -> AsyncIterator[Keeping]:
    async with keeping(tmp_path) as keeper, a_registry(keeper.settings.registry_port):
        await keeper.until_open()
        yield keeper


@pytest.fixture
async def resting_keeper(tmp_path: Path) -> AsyncIterator[Keeping]:
    """Its only round has seen an empty storage: what happens later is for it to be asked."""
    async with (
        keeping(tmp_path, interval=DAY) as keeper,
        a_registry(keeper.settings.registry_port),
    ):
        await keeper.until_open()
        assert (await keeper.get("/status"))[0] == 200
        yield keeper


async def test_the_port_opens_when_the_registrys_is_open(tmp_path: Path) -> None:
    async with keeping(tmp_path) as keeper:
        keeper.stored.cache("caches/app:main", age=DAY)
        tag = keeper.stored.storage.tag_folder("caches/app", "main")
        stored.put(tag / "current/link", b"damaged")
        async with asyncio.timeout(PATIENCE):
            while tag.exists():  # noqa: ASYNC110 - it goes with the first round
                await asyncio.sleep(0.01)
        assert not await keeper.is_open()
        async with a_registry(keeper.settings.registry_port):
            await keeper.until_open()
            status, _ = await keeper.get("/status")
            assert status == 200


async def test_the_port_is_closed_when_it_ends(tmp_path: Path) -> None:
    async with keeping(tmp_path) as keeper, a_registry(keeper.settings.registry_port):
        await keeper.until_open()
    assert not await keeper.is_open()


async def test_a_whole_cache_is_answered_with_its_digest(keeper: Keeping) -> None:
    digest = keeper.stored.cache("caches/team/app:main")
    for reference in ("main", digest):
        answer = await keeper.get(f"/check/caches/team/app?reference={reference}")
        assert answer == (200, {"digest": digest})


async def test_an_absent_cache_is_answered_as_such(keeper: Keeping) -> None:
    answer = await keeper.get("/check/caches/app?reference=main")
    assert answer == (404, {"reason": "absent"})


async def test_a_damaged_cache_is_answered_as_such_once_and_is_gone_then(
    resting_keeper: Keeping,
) -> None:
    keeper = resting_keeper
    keeper.stored.cache("caches/app:main", [b"one"])
    path = "/check/caches/app?reference=main"
    assert (await keeper.get(path))[0] == 200
    stored.put(keeper.stored.storage.data(digest_of(b"one")), b"two")
    status, answer = await keeper.get(path)
    assert (status, answer["reason"]) == (404, "damaged")
    assert digest_of(b"one") in answer["message"]
    assert keeper.stored.tags() == set()
    assert await keeper.get(path) == (404, {"reason": "absent"})


INVALID = {
    "no reference": "/check/app",
    "an empty reference": "/check/app?reference=",
    "a reference that leads out": "/check/app?reference=../../../../secret",
    "a repository that leads out": "/check/a/%2e%2e/%2e%2e/b?reference=main",
    "slashes in disguise": "/check/..%2f..%2fb?reference=main",
    "a part of a repository": "/check/app/_manifests?reference=main",
    "another algorithm": f"/check/app?reference=sha512:{'a' * 128}",
    "a zero byte": "/check/app%00?reference=main",
}


@pytest.mark.parametrize("path", INVALID.values(), ids=INVALID)
async def test_what_is_no_name_is_refused(keeper: Keeping, path: str) -> None:
    async with (
        aiohttp.ClientSession() as session,
        session.get(
            URL(f"https://localhost:{keeper.settings.port}{path}", encoded=True),
            ssl=keeper.client,
        ) as answer,
    ):
        assert answer.status in {400, 404}
        assert "digest" not in await answer.text()
        assert answer.status == 400 or "absent" not in await answer.text()


async def test_the_status_is_what_the_operator_reads(keeper: Keeping) -> None:
    keeper.stored.cache("caches/app:main", age=DAY)
    async with asyncio.timeout(PATIENCE):
        usage = Usage()
        while usage.refs != 1:
            status, answer = await keeper.get("/status")
            assert status == 200
            usage = Usage.read(answer)
    assert usage == Usage(used=keeper.stored.size(), capacity=10**9, refs=1)


def a_stranger(tmp_path: Path) -> ssl.SSLContext:
    """One of another authority, who trusts ours."""
    bundle = replace(issue(B, CLIENT, now=STARTED), trust=A.certificate)
    return a_client(mount(tmp_path / "stranger", bundle))


def a_nobody(tmp_path: Path) -> ssl.SSLContext:
    """One without a certificate."""
    return ssl.create_default_context(cafile=tmp_path / "client/ca.pem")


def a_server(tmp_path: Path) -> ssl.SSLContext:
    """One whose certificate is no client's."""
    return a_client(mount(tmp_path / "other", issue(A, SERVER, now=STARTED)))


@pytest.mark.parametrize("who", [a_stranger, a_nobody, a_server])
async def test_who_is_refused(keeper: Keeping, tmp_path: Path, who: Any) -> None:
    with pytest.raises(aiohttp.ClientError):
        await keeper.get("/status", who(tmp_path))


async def test_old_versions_of_tls_are_refused(keeper: Keeping, tmp_path: Path) -> None:
    client = a_client(tmp_path / "client")
    client.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
    with pytest.warns(DeprecationWarning, match="TLSv1_1"):
        client.maximum_version = ssl.TLSVersion.TLSv1_1
    client.set_ciphers("DEFAULT:@SECLEVEL=0")
    with pytest.raises(aiohttp.ClientError):
        await keeper.get("/status", client)


async def test_probes_and_strangers_are_not_told_of(
    keeper: Keeping, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        for _ in range(5):
            await keeper.knock()
        with suppress(aiohttp.ClientError):
            await keeper.get("/status", a_stranger(tmp_path))
        await keeper.get("/status")
    assert caplog.records == []


async def test_it_does_not_start_without_certificates(tmp_path: Path) -> None:
    async with keeping(tmp_path) as keeper:
        (keeper.settings.certificates / "key.pem").unlink()
        with pytest.raises(OSError, match="No such file"):
            await keep(replace(keeper.settings, port=free_port()))
