"""Whatever a pool, a Secret or a registry says: a look ends with a report."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from datetime import timedelta
from ipaddress import ip_network

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from buildpool import preflight
from buildpool.core.api import Reason
from buildpool.core.observed.cache import CacheReport, CacheTarget, Credentials
from buildpool.preflight import Reach
from buildpool.preflight.addresses import NEVER
from unit.preflight.servers import JOE, a_target, inspect
from unit.preflight.test_probe import trouble_of

SHORT = timedelta(seconds=2)
HOSTS = (
    "xn--a",
    "xn--.com",
    "xn--zz--zz.example",
    "xn--99999999",
    "a..b",
    ".",
    "-",
    "",
    "[::1",
    "[",
    "r:99999",
    "r:0",
    "r:",
    "r:-1",
    "].[&:s\u06601s@?#",
    "user@r",
    "\u202egro.elpmaxe",
    "r\x00",
    "r\ud800",
    "x" * 300,
)
PLACES = (
    "",
    "/",
    "https://xn--/",
    "http://].[&:s\u0661s@?#",
    "http://[::1",
    "http://[fe80::1%25lo]/",
    "https://joe:secret@r/",
    "https://joe@r/",
    "https://:secret@r/",
    "//",
    "?",
    "http://r:99999/",
    "http://r:x/",
    "https://\u202er/",
    "/a b",
    "/\x7f",
    "/\xe9",
    "\ud800",
)
a_character = st.characters(exclude_characters="\r\n\0", exclude_categories=())
hostile_text = st.text(a_character, max_size=40)
a_label = st.from_regex(r"(xn--)?[a-z0-9-]{0,12}", fullmatch=True)
a_host = st.one_of(
    st.sampled_from(HOSTS),
    hostile_text,
    st.lists(a_label, min_size=1, max_size=4).map(".".join),
    st.ip_addresses(v=6).map(lambda address: f"[{address}]:5000"),
)
a_place = st.one_of(
    st.sampled_from(PLACES),
    hostile_text,
    st.builds("{}://{}/{}".format, st.sampled_from(["http", "https", "ftp"]), a_host, hostile_text),
)


def nowhere(name: str) -> Sequence[str]:
    """A name server that knows nobody: tests ask no real one."""
    raise socket.gaierror(-2, "Name or service not known")


@asynccontextmanager
async def answering(challenge: str, location: str) -> AsyncIterator[str]:
    """A registry that says these, byte for byte; it wants a login if there is a challenge."""

    def answer(method: str) -> str:
        if challenge:
            return f"401 No\r\nWWW-Authenticate: {challenge}"
        return {"GET": "200 OK", "HEAD": "404 No"}.get(method, f"202 OK\r\nLocation: {location}")

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError, asyncio.IncompleteReadError):
            head = await reader.readuntil(b"\r\n\r\n")
            text = f"HTTP/1.1 {answer(head.split()[0].decode())}\r\nContent-Length: 0\r\n\r\n"
            writer.write(text.encode("utf-8", "surrogatepass"))
            await writer.drain()
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    try:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        await server.wait_closed()


def report_of(target: CacheTarget, *, challenge: str = "", location: str = "/") -> CacheReport:
    """A look at a registry on loopback that says this; the target's host is replaced."""

    async def look() -> CacheReport:
        async with answering(challenge, location) as host:
            reach = Reach(never=(ip_network("::/0"),), look_up=nowhere)
            return await preflight.inspect(replace(target, host=host), limit=SHORT, reach=reach)

    return asyncio.run(look())


PLAIN = CacheTarget("r", "team/cache", http=True)


@given(host=a_host, http=st.booleans(), keeper=st.none() | a_host)
@settings(deadline=None, max_examples=60)
def test_any_host_is_answered_for(host: str, http: bool, keeper: str | None) -> None:
    target = CacheTarget(host, "team/cache", http=http, keeper=keeper)
    reach = Reach(never=(*NEVER, ip_network("::/0")), look_up=nowhere)
    report = asyncio.run(preflight.inspect(target, limit=timedelta(seconds=0.2), reach=reach))
    assert report.trouble is not None
    assert report.trouble.message.isprintable() or host in report.trouble.message


@given(realm=a_place, service=hostile_text, scheme=st.sampled_from(["Bearer", "Basic", "X"]))
@settings(deadline=None, max_examples=60)
def test_any_realm_is_answered_for(realm: str, service: str, scheme: str) -> None:
    challenge = f'{scheme} realm="{realm}",service="{service}"'
    assert report_of(replace(PLAIN, credentials=JOE), challenge=challenge).trouble


@given(challenge=hostile_text)
@settings(deadline=None, max_examples=50)
def test_any_challenge_is_answered_for(challenge: str) -> None:
    assert isinstance(report_of(PLAIN, challenge=challenge), CacheReport)


@given(location=a_place)
@settings(deadline=None, max_examples=60)
def test_any_place_of_an_upload_is_answered_for(location: str) -> None:
    assert isinstance(report_of(PLAIN, location=location), CacheReport)


@pytest.mark.parametrize("realm", PLACES)
def test_a_realm_that_is_none_is_told(realm: str) -> None:
    report = report_of(PLAIN, challenge=f'Bearer realm="{realm}"')
    if "fe80" in realm:
        trouble_of(report, Reason.REGISTRY_UNREACHABLE, "token service")
    else:
        trouble_of(report, Reason.NO_REGISTRY, "names no service that gives one")


@given(username=st.text(a_character, min_size=1), password=st.text(a_character, min_size=1))
@settings(deadline=None, max_examples=40)
def test_any_credentials_can_be_sent_or_are_refused_before(username: str, password: str) -> None:
    try:
        credentials = Credentials(username, password)
    except ValueError as error:
        told = repr(error)
        assert "is no valid text" in told
        return
    challenge = 'Basic realm="r"'
    assert report_of(replace(PLAIN, credentials=credentials), challenge=challenge).trouble


@given(trust=st.binary(max_size=200))
@settings(deadline=None)
def test_any_bundle_is_answered_for(trust: bytes) -> None:
    target = CacheTarget("127.0.0.1:1", "team/cache", trust=trust)
    report = asyncio.run(inspect(target, limit=timedelta(seconds=1)))
    assert report.trouble is not None


@pytest.mark.parametrize("host", HOSTS)
async def test_a_host_that_is_none_is_told(host: str) -> None:
    report = await preflight.inspect(a_target(host), reach=Reach(look_up=nowhere))
    trouble_of(report, Reason.REGISTRY_NOT_FOUND, "correct cache.registry.ref")
