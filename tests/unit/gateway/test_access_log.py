"""What Envoy tells of connections that have ended."""

from __future__ import annotations

from typing import cast

import pytest
from envoy.data.accesslog.v3 import accesslog_pb2

from buildpool.gateway.access_log import AccessLog
from buildpool.gateway.metrics import GatewayMetrics
from buildpool.gateway.pools.served import ServedPools
from buildpool.gateway.xds.resources import CHAIN, CONNECTION


class Place:
    """A house with one pool, that notes who leaves."""

    def __init__(self) -> None:
        self.left: list[str] = []

    def served(self, chain: str) -> Place | None:
        return self if chain == "builds/ci" else None

    def leave(self, connection: str) -> None:
        self.left.append(connection)


@pytest.mark.parametrize(
    ("address", "spelled"), [("10.0.0.7", "10.0.0.7:4711"), ("fd00::1", "[fd00::1]:4711")]
)
def test_a_connection_is_called_as_its_requests_are(address: str, spelled: str) -> None:
    placement = Place()
    said = accesslog_pb2.AccessLogCommon(custom_tags={CHAIN: "builds/ci", CONNECTION: "12"})
    said.downstream_remote_address.socket_address.address = address
    said.downstream_remote_address.socket_address.port_value = 4711
    AccessLog(cast("ServedPools", placement), GatewayMetrics())._note(said)
    assert placement.left == [f"12@{spelled}"]
