"""One request and its answer: the one place where what a network does becomes a finding.

Follows no redirect and no proxy of the environment, keeps no cookie, and reads the beginning of a
body only. Never logs: errors of the HTTP client carry the headers that were sent.
"""

from __future__ import annotations

import asyncio
import os
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Final

import aiohttp
from yarl import URL

from buildpool.core.api import Reason
from buildpool.core.pki import KeyPair
from buildpool.preflight import tls
from buildpool.preflight.addresses import Addresses, AddressRefused, Reach
from buildpool.preflight.urls import name_of
from buildpool.preflight.values import Peer, PreflightFailure, RegistryAnswer

CONNECT: Final = timedelta(seconds=3)
"""How long a connection may take to be made."""
MAX_BODY_BYTES: Final = 64 * 1024
"""Bytes of a body that are read. Tokens are the longest that matters."""


@dataclass(frozen=True, slots=True)
class Wire:
    """Asks, until the time for the whole look is over."""

    _session: aiohttp.ClientSession = field(repr=False)
    _addresses: Addresses
    _context: ssl.SSLContext
    _trust: bytes | None = field(repr=False)
    _pair: KeyPair | None = field(repr=False)
    _limit: timedelta
    _deadline: float
    """On the clock of the event loop."""

    async def ask(
        self,
        peer: Peer,
        method: str,
        url: URL,
        *,
        authorization: str | None = None,
        body: bytes | None = None,
    ) -> RegistryAnswer:
        """What is answered, whatever it is; PreflightFailure where nothing is."""
        headers = {"Authorization": authorization} if authorization else {}
        try:
            async with asyncio.timeout_at(self._deadline):
                await self._look_up(peer, url)
                try:
                    async with self._session.request(
                        method, url, headers=headers, data=body, allow_redirects=False
                    ) as response:
                        return await _read(response)
                except (aiohttp.ClientError, OSError, ValueError) as error:
                    raise await self._explained(peer, url, error) from None
        except TimeoutError:
            seconds = self._limit.total_seconds()
            raise PreflightFailure(
                Reason.REGISTRY_UNREACHABLE,
                f"{self._at(peer, url)} does not answer in time ({seconds:g} s for all questions)",
                "look at its log",
            ) from None

    async def speaks_tls(self, url: URL) -> bool:
        """Whether the other side of a plain connection would rather have TLS."""
        return await tls.speaks_tls(self._endpoint(url))

    def is_public(self, url: URL) -> bool:
        """Whether what was asked has an address on the Internet."""
        return self._addresses.is_public(url)

    @property
    def has_pair(self) -> bool:
        """Whether those who ask for a client certificate are shown one."""
        return self._pair is not None

    async def _look_up(self, peer: Peer, url: URL) -> None:
        try:
            await self._addresses.look_up(peer, url)
        except AddressRefused as refused:
            raise PreflightFailure(
                Reason.REGISTRY_UNREACHABLE,
                f"{peer.name} {refused}, so it is not asked",
                f"correct {peer.written_in}",
            ) from None
        except OSError as error:
            raise _unknown(peer, url, error.strerror or "it is not known") from None

    async def _explained(self, peer: Peer, url: URL, error: Exception) -> PreflightFailure:
        of_tls = _of_openssl(error)
        hung_up = isinstance(error, (aiohttp.ClientConnectionError, aiohttp.ClientPayloadError))
        if isinstance(error, TimeoutError):
            return self._unreachable(
                peer, url, f"takes no connection within {CONNECT.total_seconds():g} s", _FIREWALL
            )
        connected = not isinstance(error, aiohttp.ClientConnectorError)
        if of_tls is None and connected and hung_up and url.scheme == "https":
            of_tls = await tls.last_words(self._endpoint(url), self._context)
        if isinstance(of_tls, ssl.SSLCertVerificationError):
            return tls.untrusted(
                peer,
                of_tls,
                await self._names(peer, url),
                has_trust=self._trust is not None,
            )
        if of_tls is not None:
            return tls.broken(peer, of_tls, has_pair=self.has_pair)
        if isinstance(error, aiohttp.ClientConnectorError):
            refused = isinstance(error.os_error, ConnectionRefusedError)
            return self._unreachable(
                peer,
                url,
                f"cannot be connected to: {_words(error.os_error)}",
                "see whether it runs, and listens on that port" if refused else _FIREWALL,
            )
        if url.scheme == "http" and await self.speaks_tls(url):
            return wants_tls(peer)
        if hung_up:
            return self._unreachable(
                peer, url, "hangs up before it has answered", "look at its log"
            )
        if isinstance(error, aiohttp.InvalidURL):
            return _unknown(peer, url, "it is no host name")
        return PreflightFailure(
            Reason.NO_REGISTRY,
            f"{self._at(peer, url)} answers in something that is not HTTP",
            f"correct {peer.written_in}",
        )

    async def _names(self, peer: Peer, url: URL) -> tuple[str, ...]:
        context = tls.make_context(peer, self._trust, self._pair)
        context.check_hostname = False
        return await tls.names_of(self._endpoint(url), context)

    def _endpoint(self, url: URL) -> tls.Endpoint:
        return tls.Endpoint(name_of(url), url.port or 0, self._addresses.of(url))

    def _unreachable(self, peer: Peer, url: URL, what: str, remedy: str) -> PreflightFailure:
        return PreflightFailure(
            Reason.REGISTRY_UNREACHABLE, f"{self._at(peer, url)} {what}", remedy
        )

    def _at(self, peer: Peer, url: URL) -> str:
        """The peer with the addresses of its name, which tell a wrong DNS from a wrong firewall."""
        addresses = self._addresses.of(url)
        return f"{peer.name} (at {', '.join(addresses[:3])})" if addresses else peer.name


_FIREWALL: Final = (
    "see whether it runs, and whether a firewall or NetworkPolicy keeps the operator from it"
)


@asynccontextmanager
async def opened(
    context: ssl.SSLContext,
    trust: bytes | None,
    pair: KeyPair | None,
    *,
    limit: timedelta,
    reach: Reach,
) -> AsyncIterator[Wire]:
    """A wire for the length of a block; its time starts now. ``context`` is made of the others."""
    addresses = Addresses(reach)
    async with aiohttp.ClientSession(
        # A connection that is kept may end just as it is used again: each request has its own.
        connector=aiohttp.TCPConnector(ssl=context, resolver=addresses, force_close=True),
        timeout=aiohttp.ClientTimeout(sock_connect=CONNECT.total_seconds()),
        cookie_jar=aiohttp.DummyCookieJar(),
        headers={"User-Agent": "buildpool", "Accept": "*/*", "Accept-Encoding": "identity"},
        auto_decompress=False,
    ) as session:
        deadline = asyncio.get_running_loop().time() + limit.total_seconds()
        yield Wire(session, addresses, context, trust, pair, limit, deadline)


def wants_tls(peer: Peer) -> PreflightFailure:
    """A registry was asked in plain HTTP and speaks TLS."""
    return PreflightFailure(
        Reason.NO_REGISTRY,
        f"{peer.name} speaks TLS and is asked in plain HTTP",
        peer.use(http=False),
    )


def _unknown(peer: Peer, url: URL, words: str) -> PreflightFailure:
    host = url.host or ""
    spelled = "" if host in peer.name else f" {host}"
    short = "" if "." in host else " (a Service is NAME.NAMESPACE.svc)"
    return PreflightFailure(
        Reason.REGISTRY_NOT_FOUND,
        f"the host name{spelled} of {peer.name} is not known: {words}",
        f"correct {peer.written_in}{short} or the cluster's DNS",
    )


async def _read(response: aiohttp.ClientResponse) -> RegistryAnswer:
    body = bytearray()
    async for chunk in response.content.iter_any():
        body += chunk
        if len(body) >= MAX_BODY_BYTES:
            break
    return RegistryAnswer(
        response.status,
        content_type=response.headers.get("Content-Type", "").partition(";")[0].strip().lower(),
        location=response.headers.get("Location"),
        challenges=tuple(response.headers.getall("WWW-Authenticate", ())),
        body=bytes(body[:MAX_BODY_BYTES]),
    )


def _of_openssl(error: BaseException | None) -> ssl.SSLError | None:
    """The error of OpenSSL behind one of the HTTP client, whose own ones only pretend to be."""
    while error is not None:
        if isinstance(error, aiohttp.ClientConnectorCertificateError):
            error = error.certificate_error
        elif isinstance(error, aiohttp.ClientConnectorError):
            error = error.os_error
        elif isinstance(error, ssl.SSLError):
            return error
        else:
            error = error.__cause__
    return None


def _words(error: OSError) -> str:
    """What the system calls it, without the addresses that asyncio adds."""
    if error.errno and error.errno > 0:
        return os.strerror(error.errno).lower()
    return "it hangs up" if isinstance(error, ConnectionError) else "no connection"
