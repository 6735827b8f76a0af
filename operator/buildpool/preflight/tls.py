"""TLS as BuildKit does it: contexts, second looks, and what goes wrong with certificates.

A second look is taken after a failure only, to name its cause: it sends no request and no
credentials, and it never fails itself.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Coroutine, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final, TypeVar

from buildpool.core.api import Reason
from buildpool.core.pki import KeyPair
from buildpool.preflight.values import Peer, PreflightFailure, plain

_T = TypeVar("_T")

SECOND_LOOK: Final = timedelta(seconds=2)
"""How long a second look may take."""
MAX_NAMES: Final = 5
"""Names of a certificate that a message lists."""

# OpenSSL's X509_V_ERR_*, which Python does not name.
_NOT_YET_VALID: Final = 9
_EXPIRED: Final = 10
_UNKNOWN_AUTHORITY: Final = frozenset({2, 18, 19, 20, 21})
_ANOTHER_NAME: Final = frozenset({62, 64})

_NO_TLS: Final = frozenset({"WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "HTTP_REQUEST"})
"""OpenSSL's words where the other side answers in something else."""
_ABOUT_OURS: Final = ("CERTIFICATE", "UNKNOWN_CA", "ACCESS_DENIED", "HANDSHAKE_FAILURE")
"""What alerts speak of that complain about a client's certificate or the lack of one."""


def make_context(peer: Peer, trust: bytes | None, pair: KeyPair | None) -> ssl.SSLContext:
    """Verifies as BuildKit does, by the system's authorities and those of ``trust``.

    Who was set up by the operator is vouched for by ``trust`` alone. Raises PreflightFailure where
    the bundle or the pair cannot be read. Takes 30 ms, most of them for the system's authorities.
    """
    context = (
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        if peer.entry is None
        else ssl.create_default_context()
    )
    # Go takes an intermediate authority for an anchor, wants no extension that old ones lack, and
    # has never a look at the common name.
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    context.hostname_checks_common_name = False
    if trust is not None:
        try:
            # Bundles carry names in any encoding between their certificates, for people.
            context.load_verify_locations(cadata=trust.decode("ascii", "ignore"))
        except (ssl.SSLError, ValueError):
            raise PreflightFailure(
                Reason.REGISTRY_NOT_TRUSTED,
                f"the authorities that are to vouch for {peer.name} cannot be read",
                f"put PEM certificates into {_bundle(peer)}",
            ) from None
    if pair is not None:
        try:
            _load(context, pair)
        except (OSError, ValueError):  # SSLError is an OSError; so is a full disk
            raise PreflightFailure(
                Reason.CREDENTIALS_REFUSED,
                f"the client certificate for {peer.name} cannot be used",
                "give a certificate and its own key, PEM and not encrypted",
            ) from None
    return context


def untrusted(
    peer: Peer, error: ssl.SSLCertVerificationError, names: Sequence[str], *, has_trust: bool
) -> PreflightFailure:
    """The certificate of the other side does not hold."""
    code, words = error.verify_code, error.verify_message.rstrip(".")
    if code in _ANOTHER_NAME:
        listed = ", ".join(plain(name) for name in names[:MAX_NAMES]) or "no name at all"
        more = f" and {len(names) - MAX_NAMES} more" * (len(names) > MAX_NAMES)
        remedy = (
            f"the certificate is for {listed}{more}: correct {peer.written_in}, or issue it again "
            "with this name among its subject alternative names"
        )
    elif code in _UNKNOWN_AUTHORITY and peer.entry is None:
        remedy = "the operator issued it: look at the condition CertificatesReady"
    elif code in _UNKNOWN_AUTHORITY and has_trust:
        remedy = f"correct {_bundle(peer)}: it holds another authority"
    elif code in _UNKNOWN_AUTHORITY:
        remedy = (
            f"give its authority in spec.registries, an entry with host {peer.entry} and caBundle"
        )
    else:
        remedy = {
            _EXPIRED: "renew it, or the authority that signed it",
            _NOT_YET_VALID: "compare the clocks of both sides",
        }.get(code, "replace it")
    return PreflightFailure(
        Reason.REGISTRY_NOT_TRUSTED,
        f"the certificate of {peer.name} is not accepted: {words}",
        remedy,
    )


def broken(peer: Peer, error: ssl.SSLError, *, has_pair: bool) -> PreflightFailure:
    """A handshake failed, for another cause than the certificate of the other side."""
    code = error.reason or ""
    words = plain(code.replace("_", " ").lower() or str(error))
    if code in _NO_TLS:
        return PreflightFailure(
            Reason.NO_REGISTRY,
            f"{peer.name} answers without TLS",
            f"if it speaks plain HTTP, {peer.use(http=True)}",
        )
    if "ALERT" in code and any(word in code for word in _ABOUT_OURS):
        return certificate_wanted(peer, words, has_pair=has_pair)
    return PreflightFailure(
        Reason.REGISTRY_UNREACHABLE,
        f"the TLS handshake with {peer.name} fails: {words}",
        "look at its log",
    )


def certificate_wanted(peer: Peer, words: str, *, has_pair: bool) -> PreflightFailure:
    """The other side wants a client certificate, or another one."""
    what = (
        f"{peer.name} refuses the client certificate that it is shown"
        if has_pair
        else f"{peer.name} demands a client certificate, and there is none"
    )
    remedy = (
        "let it take a user and password, and name their Secret in cache.registry.credentials"
        if peer.entry
        else "look at the condition CertificatesReady"
    )
    return PreflightFailure(Reason.CREDENTIALS_REFUSED, f"{what}: {words}", remedy)


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a second look goes: to the addresses of the first one, whatever the DNS says now."""

    host: str
    port: int
    addresses: tuple[str, ...]


async def names_of(endpoint: Endpoint, context: ssl.SSLContext) -> tuple[str, ...]:
    """Whom a server's certificate is for; the context must check its chain, but not its name."""

    async def look() -> tuple[str, ...]:
        async with _connection(endpoint, context) as (_, writer):
            certificate = writer.get_extra_info("peercert") or {}
            return tuple(str(name) for _, name in certificate.get("subjectAltName", ()))

    return await _bounded(look(), otherwise=())


async def last_words(endpoint: Endpoint, context: ssl.SSLContext) -> ssl.SSLError | None:
    """Why a server hangs up after a handshake.

    Under TLS 1.3 it refuses a client only then, and its words are lost where a request was under
    way to it.
    """

    async def look() -> ssl.SSLError | None:
        try:
            async with _connection(endpoint, context) as (reader, _):
                await reader.read(1)
        except ssl.SSLError as error:
            return error
        return None

    return await _bounded(look(), otherwise=None)


async def speaks_tls(endpoint: Endpoint) -> bool:
    """Whether a server takes a TLS handshake. Whose it is does not matter here."""
    anybody = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    anybody.check_hostname = False
    anybody.verify_mode = ssl.CERT_NONE

    async def look() -> bool:
        try:
            async with _connection(endpoint, anybody):
                return True
        except ssl.SSLError as error:
            return "ALERT" in (error.reason or "")  # it refuses us, but in TLS

    return await _bounded(look(), otherwise=False)


async def _bounded(look: Coroutine[None, None, _T], *, otherwise: _T) -> _T:
    try:
        async with asyncio.timeout(SECOND_LOOK.total_seconds()):
            return await look
    except (OSError, ValueError):  # TimeoutError is an OSError, a host that is no name a ValueError
        return otherwise


@asynccontextmanager
async def _connection(
    endpoint: Endpoint, context: ssl.SSLContext
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await _connected(endpoint, context)
    try:
        yield reader, writer
    finally:
        writer.transport.abort()
        with suppress(OSError):
            await writer.wait_closed()


async def _connected(
    endpoint: Endpoint, context: ssl.SSLContext
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    failure: OSError = ConnectionRefusedError()
    for address in endpoint.addresses:
        try:
            return await asyncio.open_connection(
                address, endpoint.port, ssl=context, server_hostname=endpoint.host
            )
        except ConnectionError as error:
            failure = error
    raise failure


def _load(context: ssl.SSLContext, pair: KeyPair) -> None:
    """OpenSSL takes a pair from files only: they are private, and gone at once."""
    with TemporaryDirectory(prefix="preflight-") as folder:  # mode 0700
        file = Path(folder, "pair.pem")
        file.write_bytes(pair.certificate.rstrip() + b"\n" + pair.key)
        # Without a password OpenSSL would ask for one at the terminal, and wait.
        context.load_cert_chain(file, password="")


def _bundle(peer: Peer) -> str:
    return f"caBundle of the entry in spec.registries with host {peer.entry}"
