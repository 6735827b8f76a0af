"""What the guard asks of the managed cache: of its registry and of its keeper, over mutual TLS.

One attempt at a time; how often something is tried again is up to the guard. Must never follow a
redirect, use a proxy of the environment, or fetch the bytes of a blob.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import re
import ssl
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Final, Self

import aiohttp

from buildpool.core.errors import BuildpoolError
from buildpool.sidecars.names import DIGEST, MAX_REPOSITORY_CHARACTERS, REPOSITORY, TAG
from buildpool.sidecars.tls import FILES, context_of, present

CONNECT: Final = timedelta(seconds=2)
"""How long either may take to accept a connection."""
REGISTRY_PATIENCE: Final = timedelta(seconds=15)
"""How long the registry may take: none of what it is asked for here is large."""
PASSED_ON: Final = ("Content-Type", "Content-Length", "Docker-Content-Digest")
"""Headers of the registry's answers that matter to BuildKit."""
MAX_MESSAGE_CHARACTERS: Final = 300
"""Characters of a keeper's message that are passed on."""
log = logging.getLogger(__name__)


class UnreachableError(BuildpoolError):
    """There was no answer, or none that says anything: trying again helps."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """A manifest or a blob, by its path in the registry's API."""

    path: str
    name: str
    """The repository."""
    reference: str
    """A digest, or for a manifest a tag, too."""
    is_blob: bool

    @classmethod
    def read(cls, path: str) -> Self | None:
        """A path as it was sent, without its query; None: neither a manifest's nor a blob's."""
        found = _PATH.fullmatch(path)
        if not found or len(found["name"]) > MAX_REPOSITORY_CHARACTERS:
            return None
        return cls(path, found["name"], found["blob"] or found["manifest"], bool(found["blob"]))


_PATH: Final = re.compile(
    rf"/v2/(?P<name>{REPOSITORY})/(?:manifests/(?P<manifest>{TAG}|{DIGEST})|blobs/(?P<blob>{DIGEST}))"
)


@dataclass(frozen=True, slots=True)
class UpstreamAnswer:
    """What the registry answered; never 5xx."""

    status: int
    headers: Mapping[str, str]
    """Of ``PASSED_ON``, those that were there."""
    body: bytes = b""


@dataclass(frozen=True, slots=True)
class Objection:
    """Why a cache must not be used."""

    message: str
    """For people."""
    is_absent: bool = False
    """Whether there is none, so that the registry has nothing to give either."""


class ClientCertificate:
    """The TLS context of a client, made again when the files of its folder change."""

    def __init__(self, folder: Path, *, look_every: timedelta) -> None:
        self._folder = folder
        self._pause = look_every.total_seconds()
        self._next_look = 0.0
        self._seen = b""
        self._context: ssl.SSLContext | None = None

    def context(self, *, now: float) -> ssl.SSLContext:
        """The present context; ``now`` in seconds of the event loop's clock.

        While new files cannot be used, it is the last one that could: a renewal that is half
        written is complete at the next look. UnreachableError if there never was one.
        """
        if now >= self._next_look:
            self._next_look = now + self._pause
            self._look()
        if self._context is None:
            raise UnreachableError(f"the client certificate in {self._folder} cannot be used")
        return self._context

    def _look(self) -> None:
        try:
            folder = present(self._folder)
            seen = hashlib.sha256(b"\0".join((folder / name).read_bytes() for name in FILES))
            if seen.digest() == self._seen:
                return
            renewed = context_of(folder, ssl.PROTOCOL_TLS_CLIENT)
        except (OSError, ValueError) as error:
            log.warning("The client certificate in %s cannot be used: %s", self._folder, error)
            return
        if self._context:
            log.info("The client certificate in %s was renewed.", self._folder)
        self._context, self._seen = renewed, seen.digest()


class Upstream:
    """The registry and the keeper of a managed cache."""

    def __init__(
        self,
        session: aiohttp.ClientSession,
        certificate: ClientCertificate,
        *,
        registry: str,
        keeper: str,
        keeper_patience: timedelta,
    ) -> None:
        self._session = session
        self._certificate = certificate
        self._registry = registry
        self._keeper = keeper
        self._keeper_patience = keeper_patience

    @classmethod
    @asynccontextmanager
    async def connect(
        cls,
        certificate: ClientCertificate,
        *,
        registry: str,
        keeper: str,
        keeper_patience: timedelta,
    ) -> AsyncIterator[Self]:
        """For the length of a block. Both addresses as ``host:port``.

        ``keeper_patience`` is how long one answer of the keeper may take.
        """
        async with aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0),  # so that waiting for a turn is no time-out
            cookie_jar=aiohttp.DummyCookieJar(),
            # What is passed on is passed on as it is, and its length with it.
            headers={"Accept-Encoding": "identity"},
            auto_decompress=False,
            trust_env=False,
        ) as session:
            yield cls(
                session,
                certificate,
                registry=registry,
                keeper=keeper,
                keeper_patience=keeper_patience,
            )

    async def objection(self, wanted: Wanted) -> Objection | None:
        """Why the keeper would not have this cache used; None: it is whole."""
        url = f"https://{self._keeper}/check/{wanted.name}?reference={wanted.reference}"
        answer = await self._ask("GET", url, (), self._keeper_patience)
        if answer.status == 200:
            return None
        if answer.status == 404:
            return _objection(answer.body)
        raise UnreachableError(f"{url} cannot be read: status {answer.status}")

    async def manifest(self, method: str, wanted: Wanted, accept: Sequence[str]) -> UpstreamAnswer:
        """A manifest, or with HEAD what there is to be known of it."""
        return await self._ask(method, self.url(wanted), accept, REGISTRY_PATIENCE)

    async def blob(self, wanted: Wanted) -> UpstreamAnswer:
        """What there is to be known of a blob."""
        return await self._ask("HEAD", self.url(wanted), (), REGISTRY_PATIENCE)

    def url(self, wanted: Wanted) -> str:
        """Where the registry has it."""
        return f"https://{self._registry}{wanted.path}"

    async def _ask(
        self, method: str, url: str, accept: Sequence[str], patience: timedelta
    ) -> UpstreamAnswer:
        limits = aiohttp.ClientTimeout(
            connect=CONNECT.total_seconds(), total=patience.total_seconds()
        )
        # The context belongs to the request and not to the session: connections are kept by
        # context, so that a renewed one opens new connections and disturbs no old one.
        context = self._certificate.context(now=asyncio.get_running_loop().time())
        try:
            async with self._session.request(
                method,
                url,
                headers=[("Accept", value) for value in accept],
                timeout=limits,
                ssl=context,
                allow_redirects=False,
            ) as response:
                body = await response.read()
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise UnreachableError(f"{url} cannot be read: {str(error) or 'timed out'}") from error
        if response.status >= 500:
            raise UnreachableError(f"{url} cannot be read: status {response.status}")
        headers = {name: response.headers[name] for name in PASSED_ON if name in response.headers}
        return UpstreamAnswer(response.status, headers, body)


def _objection(body: bytes) -> Objection:
    """What a keeper said, in a sentence."""
    try:
        said = json.loads(body)
        reason = str(said["reason"])
        words = [f"the cache is {reason}", str(said.get("message", ""))]
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return Objection("the cache is absent or damaged")
    return Objection(
        ": ".join(filter(None, words))[:MAX_MESSAGE_CHARACTERS], is_absent=reason == "absent"
    )
