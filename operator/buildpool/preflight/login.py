"""Asks a registry, and once more with a password or a token where it wants one.

A password goes to the registry itself, or to the token service that it names, and there never
without TLS unless the registry has none either. A token goes to the registry that asked for it, and
a registry on the Internet gets none from within.
"""

from __future__ import annotations

from base64 import b64encode

from yarl import URL

from buildpool.core.api import Reason
from buildpool.core.observed.cache import Credentials
from buildpool.preflight.challenge import Challenge, best
from buildpool.preflight.judging import check_order, refused
from buildpool.preflight.urls import url_of, with_query
from buildpool.preflight.values import Peer, PreflightFailure, RegistryAnswer, plain
from buildpool.preflight.wire import Wire


class Visitor:
    """A user of one registry, or anybody, who wants to read and write one repository."""

    def __init__(
        self, wire: Wire, peer: Peer, repository: str, credentials: Credentials | None
    ) -> None:
        self._wire = wire
        self._peer = peer
        # Not the scope that the registry proposes: for /v2/, ghcr.io proposes an example.
        self._scope = f"repository:{repository}:pull,push"
        self._credentials = credentials
        self._authorization: str | None = None
        self._taken: tuple[str | None, ...] = ()

    @property
    def user(self) -> str | None:
        """The user's name, for messages; None: anybody."""
        return None if self._credentials is None else plain(self._credentials.username)

    async def ask(self, method: str, url: URL, *, body: bytes | None = None) -> RegistryAnswer:
        """The answer, after authentication if that was asked for; 401 where it was of no use."""
        answer = await self._send(method, url, body)
        way = best(answer.challenges) if answer.status == 401 else None
        if way is None or not await self._authenticate(way, url):
            return answer
        return await self._send(method, url, body)

    async def _send(self, method: str, url: URL, body: bytes | None) -> RegistryAnswer:
        return await self._wire.ask(
            self._peer, method, url, authorization=self._authorization, body=body
        )

    async def _authenticate(self, way: Challenge, url: URL) -> bool:
        """Whether there is something new to show."""
        taken = (way.scheme, way.parameters.get("realm"), way.parameters.get("service"))
        if taken == self._taken or (way.scheme == "basic" and self._credentials is None):
            return False
        self._authorization = (
            f"Bearer {await self._token(way, url)}" if way.scheme == "bearer" else self._password
        )
        self._taken = taken
        return True

    @property
    def _password(self) -> str | None:
        if self._credentials is None:
            return None
        pair = f"{self._credentials.username}:{self._credentials.password}"
        return f"Basic {b64encode(pair.encode()).decode()}"

    async def _token(self, way: Challenge, url: URL) -> str:
        realm = self._realm(way, url)
        service = Peer(
            name=f"token service {realm.host_port_subcomponent} of {self._peer.name}",
            written_in=f"the realm in the configuration of {self._peer.name}",
            entry=self._peer.entry,
            by_realm=True,
            must_be_public=self._wire.is_public(url),
        )
        asked = with_query(realm, service=way.parameters.get("service"), scope=self._scope)
        if asked is None:
            raise self._no_service()
        answer = await self._wire.ask(service, "GET", asked, authorization=self._password)
        check_order(service, answer)
        if answer.status in (401, 403):
            raise refused(service, self.user)
        raw = answer.json() if answer.status == 200 else None
        token = (raw.get("token") or raw.get("access_token")) if isinstance(raw, dict) else None
        if not isinstance(token, str) or not token.isascii() or not token.isprintable():
            raise PreflightFailure(
                Reason.NO_REGISTRY,
                f"{service.name} answers {answer} and gives no token",
                f"correct {service.written_in}",
            )
        return token

    def _realm(self, way: Challenge, url: URL) -> URL:
        realm = url_of(way.parameters.get("realm", ""))
        if realm is None:
            raise self._no_service()
        if realm.scheme != "https" and realm.scheme != url.scheme:
            raise PreflightFailure(
                Reason.REGISTRY_NOT_TRUSTED,
                f"{self._peer.name} sends to the token service "
                f"{realm.host_port_subcomponent} without TLS, so it is told no password",
                "correct the realm in its configuration",
            )
        return realm

    def _no_service(self) -> PreflightFailure:
        return PreflightFailure(
            Reason.NO_REGISTRY,
            f"{self._peer.name} asks for a token and names no service that gives one",
            "correct the realm in its configuration",
        )
