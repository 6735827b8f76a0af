"""What Envoy's access log says of connections that have ended."""

from __future__ import annotations

import pytest
from envoy.data.accesslog.v3 import accesslog_pb2

from buildpool.gateway.access_log import ConnectionEnd
from buildpool.gateway.ext_proc.calls import read_call
from buildpool.gateway.xds.resources import CHAIN, CONNECTION, FAILURE, NOBODY, SERVER_NAME
from unit.gateway.requests import a_request

PEERS = {"10.0.0.7": "10.0.0.7:4711", "fd00::1": "[fd00::1]:4711"}


def an_entry(address: str = "10.0.0.7", **tags: str) -> accesslog_pb2.AccessLogCommon:
    entry = accesslog_pb2.AccessLogCommon(custom_tags=tags)
    entry.downstream_remote_address.socket_address.address = address
    entry.downstream_remote_address.socket_address.port_value = 4711
    return entry


@pytest.mark.parametrize(("address", "peer"), PEERS.items())
def test_a_connection_is_called_as_its_requests_are(address: str, peer: str) -> None:
    end = ConnectionEnd.read(an_entry(address, **{CONNECTION: "12"}))
    call = read_call(a_request(number=12, peer=peer))
    assert end.connection == call.connection == f"12@{peer}"


def test_a_connection_that_a_pool_took_was_not_refused() -> None:
    end = ConnectionEnd.read(an_entry(**{CHAIN: "builds/ci", FAILURE: "-"}))
    assert (end.chain, end.failure, end.was_refused) == ("builds/ci", "", False)


REFUSALS = {
    "its handshake failed": {CHAIN: "builds/ci", FAILURE: "TLS_error: no certificate"},
    "no pool has the name": {CHAIN: NOBODY, SERVER_NAME: "x.example"},
    "it is no TLS": {CHAIN: NOBODY, FAILURE: "TLS_error|error:1000009c:SSL_routines:HTTP_REQUEST"},
}
LEFT = {
    "it asked for nothing": {CHAIN: "-", SERVER_NAME: "-"},
    "its socket broke": {
        CHAIN: "builds/ci",
        FAILURE: "TLS_error:|33554464:system_library:OPENSSL_internal:Broken_pipe:TLS_error_end",
    },
}


@pytest.mark.parametrize("tags", REFUSALS.values(), ids=REFUSALS)
def test_a_connection_that_came_to_no_pool_was_refused(tags: dict[str, str]) -> None:
    assert ConnectionEnd.read(an_entry(**tags)).was_refused


@pytest.mark.parametrize("tags", LEFT.values(), ids=LEFT)
def test_a_client_that_left_was_not_refused(tags: dict[str, str]) -> None:
    assert not ConnectionEnd.read(an_entry(**tags)).was_refused
