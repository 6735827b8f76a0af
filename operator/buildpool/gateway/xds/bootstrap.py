"""What Envoy starts with: where the router is. All that concerns a pool comes from the router.

Router and Envoy speak over sockets in a folder that only their pod has: what is said there are the
private keys of all pools' servers, and a port on loopback is open to anyone who may forward ports
to the pod. Nothing here may ever depend on a pool. Pure.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

ROUTER: Final = "router"
"""The cluster of the router: it answers Envoy's questions, reads its logs and configures it."""
HISTORIES: Final = "histories"
"""The cluster of the router once more, for what it answers to clients by itself. Each client has a
connection of its own to it: one that does not read its answer holds up no other, and not what Envoy
asks."""
ROUTER_SOCKET: Final = "router.sock"
"""Where, in the folder of sockets, the router answers Envoy."""
ADMIN_SOCKET: Final = "admin.sock"
"""Where Envoy's administration is."""
MAX_CONNECTIONS: Final = 20_000
"""Connections of clients at once; Envoy refuses more, so that its memory is bounded."""
TRACKED_BITS: Final = 16
"""Streams that keep less than 2 to the power of this many bytes are not reset: that is no help."""
GOAWAY_IDLE_SECONDS: Final = 5
"""How long a connection has had no request that is told to go elsewhere without one. A client that
is about to build has lost its slot by then."""
_TYPE: Final = "type.googleapis.com/envoy.extensions.resource_monitors."
_HEAP: Final = "envoy.resource_monitors.fixed_heap"
_INJECTED: Final = "envoy.resource_monitors.injected_resource"
_REDUCE_TIMEOUTS: Final = "reduce_timeouts"
_IDLE_TIMEOUT: Final = {
    "@type": "type.googleapis.com/envoy.config.overload.v3.ScaleTimersOverloadActionConfig",
    "timer_scale_factors": [
        {"timer": "HTTP_DOWNSTREAM_CONNECTION_IDLE", "min_timeout": f"{GOAWAY_IDLE_SECONDS}s"}
    ],
}


def bootstrap(
    *,
    sockets: Path,
    memory: int = 0,
    goaway_file: str = "",
    connections: int = MAX_CONNECTIONS,
) -> dict[str, Any]:
    """Envoy's static configuration.

    ``sockets``: the folder of its sockets. ``memory``: the bytes that it may have; 0: any number.
    ``goaway_file``: once it says 1 and not 0, each connection is told to take its next requests
    elsewhere; empty: that is never said. ``connections``: how many clients may have at once.
    """
    router = _pipe(sockets / ROUTER_SOCKET)
    return {
        "node": {"id": "gateway", "cluster": "gateway"},
        "admin": {"address": _pipe(sockets / ADMIN_SOCKET)},
        # A thousand pools would make 150,000 numbers, of which nobody looks at one.
        "stats_config": {
            "stats_matcher": {
                "inclusion_list": {
                    "patterns": [
                        {"prefix": "http.gateway.downstream_"},
                        {"prefix": "listener_manager."},
                        {"prefix": "cluster.router."},
                        {"prefix": "server."},
                        {"prefix": "control_plane."},
                        {"suffix": "downstream_cx_overload_reject"},
                        {"suffix": "no_filter_chain_match"},
                    ]
                }
            }
        },
        "overload_manager": _overload_manager(memory, goaway_file, connections),
        "static_resources": {"clusters": [_router(router), _histories(router)]},
        "dynamic_resources": {
            "ads_config": {
                "api_type": "DELTA_GRPC",
                "transport_api_version": "V3",
                "set_node_on_first_message_only": True,
                "grpc_services": [{"envoy_grpc": {"cluster_name": ROUTER}}],
            },
            "lds_config": {"resource_api_version": "V3", "ads": {}},
            "cds_config": {"resource_api_version": "V3", "ads": {}},
        },
    }


def _overload_manager(memory: int, goaway_file: str, most: int) -> dict[str, Any]:
    """What bounds connections and memory: better some requests end than Envoy, and all with it."""
    connections = {
        "name": "envoy.resource_monitors.global_downstream_max_connections",
        "typed_config": {
            "@type": f"{_TYPE}downstream_connections.v3.DownstreamConnectionsConfig",
            "max_active_downstream_connections": most,
        },
    }
    heap = {
        "name": _HEAP,
        "typed_config": {
            "@type": f"{_TYPE}fixed_heap.v3.FixedHeapConfig",
            # Beside the heap there are the program itself and stacks.
            "max_heap_size_bytes": memory * 9 // 10,
        },
    }
    end = {
        "name": _INJECTED,
        "typed_config": {
            "@type": f"{_TYPE}injected_resource.v3.InjectedResourceConfig",
            "filename": goaway_file,
        },
    }
    of_memory = {
        "shrink_heap": {"threshold": {"value": 0.8}},
        # Those with the largest buffers first: of clients that send without end, or never read.
        "reset_high_memory_stream": {
            "scaled": {"scaling_threshold": 0.85, "saturation_threshold": 0.95}
        },
        "stop_accepting_requests": {"threshold": {"value": 0.92}},
        "stop_accepting_connections": {"threshold": {"value": 0.95}},
    }
    # Of HTTP/2, it is GOAWAY: once, with the headers of the next answer, or without one.
    is_said = {"threshold": {"value": 1.0}}
    of_the_end = {"disable_http_keepalive": is_said, _REDUCE_TIMEOUTS: is_said}
    actions = [
        {
            "name": f"envoy.overload_actions.{name}",
            "triggers": [{"name": monitor, **trigger}],
            **({"typed_config": _IDLE_TIMEOUT} if name == _REDUCE_TIMEOUTS else {}),
        }
        for monitor, found in (
            (_HEAP, of_memory if memory else {}),
            (_INJECTED, of_the_end if goaway_file else {}),
        )
        for name, trigger in found.items()
    ]
    return {
        "refresh_interval": "0.25s",
        "resource_monitors": [connections, *[heap] * bool(memory), *[end] * bool(goaway_file)],
        "buffer_factory_config": {"minimum_account_to_track_power_of_two": TRACKED_BITS},
        "actions": actions,
    }


def _router(address: dict[str, Any]) -> dict[str, Any]:
    unlimited = 1_000_000
    return {
        "name": ROUTER,
        "type": "STATIC",
        "connect_timeout": "1s",
        # Every request that waits is a request to the router, and one that is tried again while the
        # router starts: none may be too many.
        "circuit_breakers": {
            "thresholds": [
                {
                    "max_requests": unlimited,
                    "max_pending_requests": unlimited,
                    "max_retries": unlimited,
                }
            ]
        },
        **_options(
            {
                "http2_protocol_options": {
                    "initial_stream_window_size": 16 << 20,
                    "initial_connection_window_size": 32 << 20,
                }
            }
        ),
        "load_assignment": _endpoint(ROUTER, address),
    }


def _histories(address: dict[str, Any]) -> dict[str, Any]:
    windows = {"initial_stream_window_size": 65_535, "initial_connection_window_size": 1 << 20}
    return {
        **_router(address),
        "name": HISTORIES,
        "connection_pool_per_downstream_connection": True,
        **_options({"http2_protocol_options": windows}, idle_timeout="5s"),
        "load_assignment": _endpoint(HISTORIES, address),
    }


def _options(http2: dict[str, Any], *, idle_timeout: str = "") -> dict[str, Any]:
    name = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
    common = {"common_http_protocol_options": {"idle_timeout": idle_timeout}}
    return {
        "typed_extension_protocol_options": {
            name: {
                "@type": f"type.googleapis.com/{name}",
                **(common if idle_timeout else {}),
                "explicit_http_config": http2,
            }
        }
    }


def _endpoint(cluster: str, address: dict[str, Any]) -> dict[str, Any]:
    return {
        "cluster_name": cluster,
        "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address}}]}],
    }


def _pipe(path: Path) -> dict[str, Any]:
    return {"pipe": {"path": str(path), "mode": 0o666}}
