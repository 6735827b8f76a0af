"""What Envoy is answered: messages of ext_proc. Nothing is decided here."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import quote

import grpc
from envoy.config.core.v3 import base_pb2
from envoy.service.ext_proc.v3 import external_processor_pb2 as ext_proc
from envoy.type.v3 import http_status_pb2
from google.protobuf import struct_pb2

from buildpool.core.routing.values import ROUTE_BUILDER, ROUTE_METADATA, Target


def go_on(
    builder: Target | None = None, *, headers: Mapping[str, str] | None = None
) -> ext_proc.ProcessingResponse:
    """The request goes on: to this builder, or to where it is said later; with these headers."""
    common = ext_proc.CommonResponse(header_mutation=_written(headers)) if headers else None
    response = ext_proc.ProcessingResponse(
        request_headers=ext_proc.HeadersResponse(response=common)
    )
    return response if builder is None else _routed(response, builder)


def go_on_as_it_is() -> ext_proc.ProcessingResponse:
    """The request, whose body was read, goes to where its path leads."""
    return ext_proc.ProcessingResponse(request_body=ext_proc.BodyResponse())


def go_on_with(builder: Target, body: bytes | None = None) -> ext_proc.ProcessingResponse:
    """The request, whose body was read, goes to this builder; with another body, if any."""
    common = ext_proc.CommonResponse()
    if body is not None:
        common.body_mutation.body = body
    response = ext_proc.ProcessingResponse(request_body=ext_proc.BodyResponse(response=common))
    return _routed(response, builder)


def refuse(code: grpc.StatusCode, message: str) -> ext_proc.ProcessingResponse:
    """The request ends here, with a status and words for the user."""
    return ext_proc.ProcessingResponse(
        immediate_response=ext_proc.ImmediateResponse(
            status=http_status_pb2.HttpStatus(code=http_status_pb2.OK),
            grpc_status=ext_proc.GrpcStatus(status=code.value[0]),
            body=message.encode(),
            details="buildpool",
        )
    )


def response_headers(said: Mapping[str, str] | None = None) -> ext_proc.ProcessingResponse:
    """The response goes on, with these headers in place of its own."""
    return ext_proc.ProcessingResponse(
        response_headers=ext_proc.HeadersResponse(
            response=ext_proc.CommonResponse(header_mutation=_written(said or {}))
        )
    )


def response_trailers() -> ext_proc.ProcessingResponse:
    """The response ends as it is."""
    return ext_proc.ProcessingResponse(response_trailers=ext_proc.TrailersResponse())


def _routed(response: ext_proc.ProcessingResponse, builder: Target) -> ext_proc.ProcessingResponse:
    # Dynamic metadata, not a header: a client can write headers.
    route = struct_pb2.Struct()
    route.update({ROUTE_BUILDER: builder.address})
    response.dynamic_metadata.update({ROUTE_METADATA: route})
    return response


def _written(headers: Mapping[str, str]) -> ext_proc.HeaderMutation:
    """Headers, in place of those that have their names."""
    return ext_proc.HeaderMutation(
        set_headers=[
            base_pb2.HeaderValueOption(
                header=base_pb2.HeaderValue(key=key, raw_value=_escaped(value)),
                append_action=base_pb2.HeaderValueOption.OVERWRITE_IF_EXISTS_OR_ADD,
            )
            for key, value in headers.items()
        ]
    )


def _escaped(message: str) -> bytes:
    """A message as gRPC puts it into a header."""
    return quote(message, safe=" !\"#$&'()*+,-./:;<=>?@[\\]^_`{|}~").encode()
