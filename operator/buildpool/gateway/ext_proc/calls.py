"""What Envoy says about one request: which client asks for what, and on which connection."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import timedelta
from enum import Enum
from typing import Final
from urllib.parse import unquote

from envoy.service.ext_proc.v3 import external_processor_pb2 as ext_proc

from buildpool.buildkit.methods import BRIDGE, CONTENT, CONTROL, HEALTH, TRACES


class CallKind(Enum):
    """What a request means to the gateway."""

    HELLO = "hello"
    """How builds begin: it waits for a slot."""
    LOOK = "look"
    """A hello of somebody who only looks whether the pool answers: goes to a builder that is there,
    and wakes nobody."""
    BROWSE = "browse"
    """A hello of somebody who looks at what was built (``buildx history``): goes to a builder that
    is there. A pool without builders it wakes, and waits as a build does: it might be one."""
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


LOOK_TIME: Final = timedelta(seconds=30)
"""A hello whose client gives up within it begins no build: buildx says 20 s for ls, inspect and
create, and nothing for builds."""
UNIT_SECONDS: Final = {"H": 3600.0, "M": 60.0, "S": 1.0, "m": 1e-3, "u": 1e-6, "n": 1e-9}
"""Of a deadline, as gRPC writes it."""
DEADLINE: Final = re.compile(r"([0-9]{1,8})([HMSmun])", re.ASCII)
MAX_TRACEPARENT_CHARACTERS: Final = 128
"""Characters of it that are kept; it has 55."""
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
    deadline: timedelta | None = None
    """For how long its client waits; None: for ever, or nobody can tell."""
    traceparent: str = ""
    """In which trace its client does it, as the client says; empty: in none. buildx and buildctl
    trace every build."""
    is_tunnelled: bool = False
    """Whether its client's library of gRPC knows nothing of TLS, as that of buildx: it dials by
    itself. Other programs leave that to the library."""

    @property
    def kind(self) -> CallKind:
        """What it means."""
        kind = kind_of(self.path)
        if kind is not CallKind.HELLO:
            return kind
        if self.deadline is not None and self.deadline <= LOOK_TIME:
            return CallKind.LOOK
        return CallKind.BROWSE if self.is_tunnelled and not self.traceparent else kind

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
        deadline=read_deadline(headers.get("grpc-timeout", "")),
        traceparent=headers.get("traceparent", "")[:MAX_TRACEPARENT_CHARACTERS],
        is_tunnelled=headers.get(":scheme") == "http",
    )


def read_deadline(written: str) -> timedelta | None:
    """For how long a client waits, as gRPC's header says; None where it says nothing readable.

    Source: gRPC over HTTP2, "Timeout".
    """
    found = DEADLINE.fullmatch(written)
    return timedelta(seconds=int(found[1]) * UNIT_SECONDS[found[2]]) if found is not None else None


def headers_of(message: ext_proc.HttpHeaders | ext_proc.HttpTrailers) -> dict[str, str]:
    """Headers by name; of one that stands twice, the last."""
    given = message.headers if isinstance(message, ext_proc.HttpHeaders) else message.trailers
    return {
        header.key: header.raw_value.decode("latin-1") or header.value for header in given.headers
    }
