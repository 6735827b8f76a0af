"""What Envoy tells about connections that ended or were never let in (access logs).

The end of a connection gives back what it held. A handshake that failed is told here and nowhere
else: its client sees little (buildx says "context deadline exceeded" after 20 s).
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterable
from typing import Any, Final

import grpc.aio
from envoy.data.accesslog.v3 import accesslog_pb2
from envoy.service.accesslog.v3 import als_pb2, als_pb2_grpc

from buildpool.core import naming
from buildpool.core.routing.values import pool_of
from buildpool.gateway.metrics import GatewayMetrics
from buildpool.gateway.pools.served import ServedPools
from buildpool.gateway.xds.resources import CHAIN, CONNECTION, FAILURE, NOBODY, SERVER_NAME

LONGEST: Final = 200
"""Characters of what a client wrote that are logged."""
log: Final = logging.getLogger(__name__)


class AccessLog(als_pb2_grpc.AccessLogServiceServicer):  # type: ignore[misc]
    """The servicer that Envoy tells."""

    def __init__(self, pools: ServedPools, metrics: GatewayMetrics) -> None:
        self._pools = pools
        self._metrics = metrics

    async def StreamAccessLogs(  # noqa: N802 - the name is Envoy's
        self,
        messages: AsyncIterable[als_pb2.StreamAccessLogsMessage],
        _: grpc.aio.ServicerContext[Any, Any],
    ) -> als_pb2.StreamAccessLogsResponse:
        """Listens for as long as Envoy tells."""
        async for message in messages:
            for entry in message.tcp_logs.log_entry:
                self._note(entry.common_properties)
        return als_pb2.StreamAccessLogsResponse()

    def _note(self, said: accesslog_pb2.AccessLogCommon) -> None:
        tags = said.custom_tags
        address = said.downstream_remote_address.socket_address
        # As Envoy spells it where it asks about a request (``calls.Call.connection``).
        peer = naming.authority_form(address.address, address.port_value)
        chain, failure = _given(tags.get(CHAIN, "")), _given(tags.get(FAILURE, ""))
        served = self._pools.served(chain)
        if served is not None:
            served.leave(f"{tags.get(CONNECTION, '')}@{peer}")
        if failure or chain in ("", NOBODY):
            asked = _given(tags.get(SERVER_NAME, ""))[:LONGEST]
            # Only pools that are served: a label must not be what a stranger wrote.
            pool = served.brief.key if served is not None else pool_of("")
            self._metrics.refused(pool, "TLS" if failure else "NO_POOL")
            log.warning(
                "refused a connection from %s to %r: %s",
                peer,
                asked,
                failure[:LONGEST] or "no pool has this name, or it is no TLS",
            )


def _given(value: str) -> str:
    """A value of the log; empty where Envoy has none, which it writes as a dash."""
    return "" if value == "-" else value
