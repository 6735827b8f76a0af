"""The guard of a builder: what its buildkitd reads of the managed cache goes past it.

BuildKit fetches the layers of an imported cache when it needs them, and fails the build if it
cannot. It gives up at once where a registry refuses the connection, as one does that is being
restarted. So the guard stands in buildkitd's configuration as the registry's mirror: it lets only
those caches through that the keeper found whole, and holds the request for a layer until the
registry is there, to which it then redirects.

Where a mirror answers 4xx or 5xx, or not at all, BuildKit asks the registry itself, past the guard
and unverified. So a cache that nobody vouches for is refused with a status that ends BuildKit's
search: 300, without a location. The build goes on without the cache and shows the reason.

It must never carry the bytes of a layer, answer anybody without a certificate of the pool (the
steps of a build share its network), or keep a builder from starting because the cache is away.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Final, TypeVar
from urllib.parse import urlsplit

from aiohttp import web

from buildpool.process import serve
from buildpool.sidecars.guard.upstream import (
    ClientCertificate,
    Objection,
    UnreachableError,
    Upstream,
    UpstreamAnswer,
    Wanted,
)
from buildpool.sidecars.tls import server_context

T = TypeVar("T")

PAUSE: Final = timedelta(milliseconds=250)
"""Between two attempts to reach the registry or the keeper."""
PROBE_TIMEOUT: Final = timedelta(seconds=2)
"""How long the registry has to accept a connection."""
NOTEWORTHY: Final = timedelta(seconds=1)
"""How long a request is held without a word in the log."""
LAST_ANSWERS: Final = timedelta(milliseconds=250)
"""How long requests under way have at the end, and once more until they are cut off."""
NO_CACHE_STATUS: Final = 300
"""Status that has BuildKit do without a cache. Of 3xx it follows those with a location only."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class GuardSettings:
    """Where the guard stands and what it stands before."""

    registry: str
    """``host:port``, as its certificate names it and as buildkitd can reach it."""
    keeper: str
    """``host:port``, as its certificate names it."""
    server_certificates: Path
    """Folder with ca.pem, cert.pem and key.pem: what buildkitd is shown. Read once."""
    client_certificates: Path
    """Folder with the same files: what registry and keeper are shown. Can be renewed."""
    port: int
    patience: timedelta = timedelta(seconds=20)
    """How long the port stays closed for a registry that accepts no connections."""
    manifest_patience: timedelta = timedelta(seconds=10)
    """How long a cache is waited for, from the first attempt that failed. Then: no cache."""
    keeper_patience: timedelta = timedelta(seconds=30)
    """How long one answer of the keeper may take: longer than it waits for its own reading."""
    blob_patience: timedelta = timedelta(minutes=10)
    """How long a layer is waited for, from the first attempt that failed. Then: 503."""
    look_every: timedelta = timedelta(seconds=10)
    """How often the client's certificate is looked at at most."""


async def guard(settings: GuardSettings) -> None:
    """Guards until cancelled. OSError: its own certificate is unusable, or its port taken."""
    context = server_context(settings.server_certificates)
    certificate = ClientCertificate(settings.client_certificates, look_every=settings.look_every)
    async with Upstream.connect(
        certificate,
        registry=settings.registry,
        keeper=settings.keeper,
        keeper_patience=settings.keeper_patience,
    ) as upstream:
        await _wait_for_registry(settings)
        # With cancellation: nobody who hung up is waited for.
        answer = _Guard(settings, upstream).answer
        server = web.Server(answer, handler_cancellation=True, access_log=None)
        runner = web.ServerRunner(server, shutdown_timeout=LAST_ANSWERS.total_seconds())
        async with serve(runner, settings.port, ssl_context=context):
            log.info("Guarding what is read from %s.", settings.registry)
            await asyncio.Event().wait()


class _Guard:
    def __init__(self, settings: GuardSettings, upstream: Upstream) -> None:
        self._settings = settings
        self._upstream = upstream

    async def answer(self, request: web.BaseRequest) -> web.Response:
        if request.method not in ("GET", "HEAD"):
            message = "this is for reading only"
            return _refusal(405, "UNSUPPORTED", message, {"Allow": "GET, HEAD"})
        # The path as it was sent: nothing is decoded, and "..", "%2e" or "//" match nothing.
        path = request.raw_path.partition("?")[0]
        if path == "/v2/":
            return web.json_response({})
        wanted = Wanted.read(path)
        if wanted is None:
            return _refusal(404, "UNSUPPORTED", "only manifests and blobs can be had here")
        try:
            return await (self._blob if wanted.is_blob else self._manifest)(request, wanted)
        except UnreachableError as error:
            return _refusal(503, "UNAVAILABLE", str(error))

    async def _manifest(self, request: web.BaseRequest, wanted: Wanted) -> web.Response:
        accept = request.headers.getall("Accept", [])

        async def ask() -> web.Response:
            objection = await self._upstream.objection(wanted)
            if objection is not None:
                return _no_cache(objection)
            # Within the same attempt: if the registry goes away now, the cache must be looked at
            # again when it is back.
            return _passed_on(
                request, await self._upstream.manifest(request.method, wanted, accept)
            )

        try:
            return await _patiently(ask, self._settings.manifest_patience, wanted)
        except UnreachableError as error:
            return _no_cache(Objection(str(error)))

    async def _blob(self, request: web.BaseRequest, wanted: Wanted) -> web.Response:
        answer = await _patiently(
            lambda: self._upstream.blob(wanted), self._settings.blob_patience, wanted
        )
        if answer.status == 404:
            return _refusal(404, "BLOB_UNKNOWN", "the registry does not have this blob")
        if answer.status == 200 and request.method == "GET":
            return web.Response(status=307, headers={"Location": self._upstream.url(wanted)})
        return _passed_on(request, answer)


async def _patiently(ask: Callable[[], Awaitable[T]], patience: timedelta, wanted: Wanted) -> T:
    """Asks until there is an answer; the last UnreachableError if there is none for too long.

    Counted from the first failure, because an attempt that took long has not been idle. No later
    attempt outlasts the patience.
    """
    loop = asyncio.get_running_loop()
    failing_since: float | None = None
    deadline: float | None = None
    last = UnreachableError("nobody was asked")
    end = "broken off"
    try:
        while True:
            try:
                async with asyncio.timeout_at(deadline):
                    answer = await ask()
            except UnreachableError as error:
                last = error
            except TimeoutError:
                pass  # of the last attempt, which cannot tell more than the one before
            else:
                end = "answered"
                return answer
            if failing_since is None or deadline is None:
                failing_since = loop.time()
                deadline = failing_since + patience.total_seconds()
            if loop.time() >= deadline:
                end = f"refused, because {last}"
                raise last
            await asyncio.sleep(PAUSE.total_seconds())
    finally:
        held = 0 if failing_since is None else loop.time() - failing_since
        if held > NOTEWORTHY.total_seconds():
            log.info("%s was held for %.1f s and then %s.", wanted.path, held, end)


def _passed_on(request: web.BaseRequest, answer: UpstreamAnswer) -> web.Response:
    if 300 <= answer.status < 400:
        return _refusal(502, "UNSUPPORTED", "the registry redirects, which it must not")
    headers = dict(answer.headers)
    if request.method == "GET":
        headers.pop("Content-Length", None)  # follows from the body
    return web.Response(status=answer.status, headers=headers, body=answer.body or None)


def _no_cache(objection: Objection) -> web.Response:
    """Refuses a manifest: what is absent as any registry would, all else for good."""
    if objection.is_absent:
        return _refusal(404, "MANIFEST_UNKNOWN", objection.message)
    # BuildKit shows the status line only, and a status line is printable ASCII.
    reason = "".join(c if c.isascii() and c.isprintable() else "?" for c in objection.message)
    return _refusal(NO_CACHE_STATUS, "MANIFEST_UNKNOWN", objection.message, reason=reason)


def _refusal(
    status: int,
    code: str,
    message: str,
    headers: Mapping[str, str] | None = None,
    reason: str | None = None,
) -> web.Response:
    errors = {"errors": [{"code": code, "message": message}]}
    return web.json_response(errors, status=status, reason=reason, headers=headers)


async def _wait_for_registry(settings: GuardSettings) -> None:
    """Until the registry accepts a connection, but not for ever."""
    registry = urlsplit(f"//{settings.registry}")
    try:
        async with asyncio.timeout(settings.patience.total_seconds()):
            while True:
                if await _accepts(registry.hostname, registry.port):
                    return
                await asyncio.sleep(PAUSE.total_seconds())
    except TimeoutError:
        log.warning("%s accepts no connections; starting without it.", settings.registry)


async def _accepts(host: str | None, port: int | None) -> bool:
    try:
        async with asyncio.timeout(PROBE_TIMEOUT.total_seconds()):
            _, writer = await asyncio.open_connection(host, port)
    except (OSError, TimeoutError):
        return False
    writer.close()
    return True
