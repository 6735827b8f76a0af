"""Requests as Envoy asks about them."""

from __future__ import annotations

from envoy.config.core.v3 import base_pb2
from envoy.service.ext_proc.v3 import external_processor_pb2 as ext_proc
from google.protobuf import struct_pb2

from buildpool.buildkit.methods import CONTROL


def a_request(
    path: str = f"{CONTROL}ListWorkers",
    *,
    pool: str = "builds/ci",
    identity: str = "buildpool://ann",
    number: int = 1,
    peer: str = "127.0.0.1:1",
    **headers: str,
) -> ext_proc.ProcessingRequest:
    """The first message about a request, on the connection with this number."""
    given = {":path": path} | {name.replace("_", "-"): value for name, value in headers.items()}
    attributes = struct_pb2.Struct()
    attributes.update(
        {
            "connection.id": number,
            "source.address": peer,
            "connection.uri_san_peer_certificate": identity,
            "xds.filter_chain_name": pool,
        }
    )
    return ext_proc.ProcessingRequest(
        request_headers=ext_proc.HttpHeaders(
            headers=base_pb2.HeaderMap(
                headers=[
                    base_pb2.HeaderValue(key=name, raw_value=value.encode())
                    for name, value in given.items()
                ]
            )
        ),
        attributes={"envoy.filters.http.ext_proc": attributes},
    )
