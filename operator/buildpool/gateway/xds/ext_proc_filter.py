"""What Envoy asks the router about each request, and how long it waits for an answer. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from buildpool.buildkit.history import METHOD as LISTEN
from buildpool.buildkit.methods import BRIDGE, CONTENT, CONTROL, HEALTH, TRACES
from buildpool.buildkit.solve_requests import MAX_MESSAGE_BYTES
from buildpool.core.routing.values import ROUTE_METADATA
from buildpool.gateway.xds.bootstrap import HISTORIES, ROUTER

FILTER: Final = "router-asked"
"""Name of the filter that asks."""
LONGEST_ANSWER: Final = "3600s"
"""How long the router may take for an answer: the most that Envoy allows. The longest wait for a
slot is shorter (``gateway.maxWait``)."""
MESSAGE_ROOM_BYTES: Final = MAX_MESSAGE_BYTES + (1 << 20)
"""Bytes that Envoy gathers of a message, more than the router takes of a build,"""
QUESTION_ROOM_BYTES: Final = 128 << 10
"""or of a question about builds."""
_TYPE: Final = "type.googleapis.com/envoy."


def routes(label: str) -> Iterable[dict[str, Any]]:
    """What is asked about each request; all that BuildKit does not know goes nowhere."""
    # A message that is too long comes as far as there is room, so that it can be refused.
    read = {"request_body_mode": "BUFFERED_PARTIAL"}
    modes: dict[str, dict[str, Any]] = {
        f"{CONTROL}Solve": {
            **read,
            "response_header_mode": "SEND",
            "response_trailer_mode": "SEND",
        },
        f"{CONTROL}Status": read,
        LISTEN: read,
        # Which build, or which of its content, only the message says.
        f"{CONTROL}UpdateBuildHistory": read,
        f"{CONTENT}Info": read,
        f"{CONTENT}Read": read,
        f"{CONTROL}Session": {"response_trailer_mode": "SEND"},
        f"{BRIDGE}Solve": read,
    }
    # Without it no more of a message is gathered than the window of its stream has room for.
    questions = (f"{CONTROL}Status", LISTEN, f"{CONTROL}UpdateBuildHistory")
    longest = dict.fromkeys((*questions, f"{CONTENT}Info", f"{CONTENT}Read"), QUESTION_ROOM_BYTES)
    onward = {"cluster": label, "timeout": "0s", "idle_timeout": "0s"}
    for path, mode in modes.items():
        gathered = {"request_body_buffer_limit": longest.get(path, MESSAGE_ROOM_BYTES)}
        yield {
            "match": {"path": path},
            # A list of all builders' records is the router's own answer.
            "route": {**onward, "cluster": HISTORIES} if path == LISTEN else onward,
            **(gathered if "request_body_mode" in mode else {}),
            "typed_per_filter_config": {
                FILTER: {
                    "@type": f"{_TYPE}extensions.filters.http.ext_proc.v3.ExtProcPerRoute",
                    "overrides": {"processing_mode": {**_HEADERS_ONLY, **mode}},
                }
            },
        }
    for prefix in (CONTROL, BRIDGE, HEALTH, TRACES, CONTENT):
        yield {"match": {"prefix": prefix}, "route": onward}


_HEADERS_ONLY: Final = {
    "request_header_mode": "SEND",
    "response_header_mode": "SKIP",
    "request_body_mode": "NONE",
    "response_body_mode": "NONE",
    "request_trailer_mode": "SKIP",
    "response_trailer_mode": "SKIP",
}


def ext_proc_filter() -> dict[str, Any]:
    """How Envoy asks."""
    return {
        "@type": f"{_TYPE}extensions.filters.http.ext_proc.v3.ExternalProcessor",
        "grpc_service": {
            "envoy_grpc": {"cluster_name": ROUTER},
            # While the router starts again, what asks it waits: for five minutes. Each pause is a
            # random part of its interval.
            "retry_policy": {
                "num_retries": 1200,
                "retry_on": "unavailable,connect-failure,reset,refused-stream,cancelled",
                "retry_back_off": {"base_interval": "0.2s", "max_interval": "0.5s"},
            },
        },
        "message_timeout": LONGEST_ANSWER,
        "max_message_timeout": LONGEST_ANSWER,
        # What runs goes on without the router. What was not answered has no destination.
        "failure_mode_allow": True,
        "request_attributes": [
            "source.address",
            "connection.id",
            "connection.uri_san_peer_certificate",
            "xds.filter_chain_name",
        ],
        "metadata_options": {"receiving_namespaces": {"untyped": [ROUTE_METADATA]}},
        "processing_mode": _HEADERS_ONLY,
    }
