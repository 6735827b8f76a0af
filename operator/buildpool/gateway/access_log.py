"""The access log of Envoy: connections that ended, and those that were never let in.

The end of a connection gives back what it held. A handshake that failed is reported here and
nowhere else: its client sees little (buildx says "context deadline exceeded" after 20 s).
A client that left was not refused, however far it came: load balancers and probes connect and hang
up all day.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterable
from dataclasses import dataclass
from typing import Any, Final, Self

import grpc.aio
from envoy.data.accesslog.v3 import accesslog_pb2
from envoy.service.accesslog.v3 import als_pb2, als_pb2_grpc

from buildpool.core import naming
from buildpool.core.routing.values import pool_of
from buildpool.gateway.metrics import GatewayMetrics
from buildpool.gateway.pools.served import ServedPools
from buildpool.gateway.xds.resources import CHAIN, CONNECTION, FAILURE, NOBODY, SERVER_NAME

MAX_LOGGED_CHARACTERS: Final = 200
"""Characters of what a client sent that are logged."""
SOCKET_BROKE: Final = "system_library"
"""The part of Envoy's TLS library that a failure names where the client's socket broke."""
log: Final = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ConnectionEnd:
    """A connection of a client that is over."""

    number: str
    """As Envoy counts its connections."""
    peer: str
    """Address and port of the client."""
    chain: str
    """The filter chain that took the connection; empty where it ended before it asked for any."""
    server_name: str
    """The name that the client asked for; empty where it asked for none."""
    failure: str
    """Why the handshake failed, as Envoy's TLS library says; empty where it did not."""

    @classmethod
    def read(cls, entry: accesslog_pb2.AccessLogCommon) -> Self:
        """The connection of one entry of the log."""
        address = entry.downstream_remote_address.socket_address
        # Envoy writes a dash where it has no value.
        tags = {tag: "" if value == "-" else value for tag, value in entry.custom_tags.items()}
        return cls(
            number=tags.get(CONNECTION, ""),
            peer=naming.authority_form(address.address, address.port_value),
            chain=tags.get(CHAIN, ""),
            server_name=tags.get(SERVER_NAME, ""),
            failure=tags.get(FAILURE, ""),
        )

    @property
    def connection(self) -> str:
        """The name of the connection, as its requests have it (``calls.Call.connection``)."""
        return f"{self.number}@{self.peer}"

    @property
    def was_refused(self) -> bool:
        """Whether it was we that let no request through it."""
        has_left = not self.chain or SOCKET_BROKE in self.failure
        return not has_left and (bool(self.failure) or self.chain == NOBODY)


class AccessLog(als_pb2_grpc.AccessLogServiceServicer):  # type: ignore[misc]
    """The servicer to which Envoy sends its access log."""

    def __init__(self, pools: ServedPools, metrics: GatewayMetrics) -> None:
        self._pools = pools
        self._metrics = metrics

    async def StreamAccessLogs(  # noqa: N802 - the name is Envoy's
        self,
        messages: AsyncIterable[als_pb2.StreamAccessLogsMessage],
        _: grpc.aio.ServicerContext[Any, Any],
    ) -> als_pb2.StreamAccessLogsResponse:
        """Reads the log of one Envoy for as long as it sends one."""
        async for message in messages:
            for entry in message.tcp_logs.log_entry:
                self._on_end(ConnectionEnd.read(entry.common_properties))
        return als_pb2.StreamAccessLogsResponse()

    def _on_end(self, end: ConnectionEnd) -> None:
        served = self._pools.served(end.chain)
        if served is not None:
            served.leave(end.connection)
        if end.was_refused:
            # Only pools that are served: a label must not be what a stranger wrote.
            pool = served.brief.key if served is not None else pool_of("")
            self._metrics.refused(pool, "TLS" if end.failure else "NO_POOL")
            log.warning(
                "refused a connection from %s to %r: %s",
                end.peer,
                end.server_name[:MAX_LOGGED_CHARACTERS],
                end.failure[:MAX_LOGGED_CHARACTERS] or "no pool has this name",
            )
        else:
            log.debug("the connection from %s has ended", end.peer)
