"""What Envoy says about one request: which client asks for what, and on which connection."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Final
from urllib.parse import unquote

from envoy.service.ext_proc.v3 import external_processor_pb2 as ext_proc

from buildpool.buildkit.methods import BRIDGE, CONTENT, CONTROL, HEALTH, TRACES


class CallKind(Enum):
    """What a request means to the gateway."""

    HELLO = "hello"
    """How builds begin: it waits for a slot."""
    QUESTION = "question"
    """About the pool: needs a builder, no slot; wakes the pool."""
    CARE = "care"
    """About what builders keep: goes to one that is there, and wakes nobody."""
    SESSION = "session"
    SOLVE = "solve"
    STATUS = "status"
    BRIDGE_SOLVE = "bridge solve"
    BRIDGE = "bridge"
    """Anything else about a build that runs."""


_KINDS: Final = {
    f"{CONTROL}ListWorkers": CallKind.HELLO,
    f"{CONTROL}Info": CallKind.QUESTION,
    f"{CONTROL}Session": CallKind.SESSION,
    f"{CONTROL}Solve": CallKind.SOLVE,
    f"{CONTROL}Status": CallKind.STATUS,
    f"{BRIDGE}Solve": CallKind.BRIDGE_SOLVE,
}


READING: Final = frozenset(
    {
        f"{CONTROL}DiskUsage",
        f"{CONTROL}ListenBuildHistory",
        *(f"{CONTENT}{method}" for method in ("Info", "List", "ListStatuses", "Read", "Status")),
        f"{TRACES}Export",
    }
)
"""Calls of the kind CARE that change nothing which others build with."""


def kind_of(path: str) -> CallKind:
    """What a request of this path means."""
    if path in _KINDS:
        return _KINDS[path]
    if path.startswith(BRIDGE):
        return CallKind.BRIDGE
    return CallKind.QUESTION if path.startswith(HEALTH) else CallKind.CARE


@dataclass(frozen=True, slots=True)
class Call:
    """One request, as its headers say."""

    path: str
    connection: str
    """Which connection: unlike any other that is open."""
    chain: str
    """The filter chain that took it, which is the pool's name."""
    identity: str
    """The URI in the client's certificate."""
    ref: str = ""
    """The build that it is about, where it says so."""
    session: str = ""
    """The session that it is, where it is one."""
    shared_key: str = ""
    """What its client calls the context that it uploads."""

    @property
    def kind(self) -> CallKind:
        """What it means."""
        return kind_of(self.path)

    @property
    def method(self) -> str:
        """Its name, for people."""
        return self.path.rpartition("/")[2]


def read_call(request: ext_proc.ProcessingRequest) -> Call:
    """The request that these headers begin."""
    headers = headers_of(request.request_headers)
    said = {
        key: value.string_value or f"{value.number_value:.0f}"
        for attributes in request.attributes.values()
        for key, value in attributes.fields.items()
    }
    shared_key = headers.get("x-docker-expose-session-sharedkey", "")
    if headers.get("x-docker-expose-session-sharedkey-encoded"):
        shared_key = unquote(shared_key)
    return Call(
        path=headers.get(":path", ""),
        # A number is used again when Envoy starts again, an address when its client has gone.
        connection=f"{said.get('connection.id', '')}@{said.get('source.address', '')}",
        chain=said.get("xds.filter_chain_name", ""),
        identity=said.get("connection.uri_san_peer_certificate", ""),
        ref=headers.get("buildkit-controlapi-buildid", ""),
        session=headers.get("x-docker-expose-session-uuid", ""),
        shared_key=shared_key,
    )


def headers_of(message: ext_proc.HttpHeaders | ext_proc.HttpTrailers) -> dict[str, str]:
    """Headers by name; of one that stands twice, the last."""
    given = message.headers if isinstance(message, ext_proc.HttpHeaders) else message.trailers
    return {
        header.key: header.raw_value.decode("latin-1") or header.value for header in given.headers
    }
