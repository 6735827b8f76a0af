"""One pool as Envoy knows it: a filter chain of the one listener, a cluster, and three secrets.

A chain that changes is cut, with all its connections, once Envoy's drain time is over. So a chain
says nothing but the pool's name and how it is reached; what changes is in secrets, which Envoy gets
by name. Nothing of the listener itself may change: that would cut all pools. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta
from typing import Any, Final

from envoy.config.cluster.v3 import cluster_pb2
from envoy.config.listener.v3 import listener_pb2
from envoy.config.listener.v3.listener_components_pb2 import FilterChain

# Every type that a configuration names has to be known before it can be parsed.
from envoy.extensions.access_loggers.grpc.v3 import als_pb2 as _als  # noqa: F401
from envoy.extensions.filters.http.ext_proc.v3 import ext_proc_pb2 as _ext_proc  # noqa: F401
from envoy.extensions.filters.http.local_ratelimit.v3 import (
    local_rate_limit_pb2 as _rate,  # noqa: F401
)
from envoy.extensions.filters.http.router.v3 import router_pb2 as _router  # noqa: F401
from envoy.extensions.filters.listener.tls_inspector.v3 import (
    tls_inspector_pb2 as _tls_inspector,  # noqa: F401
)
from envoy.extensions.filters.network.connection_limit.v3 import (
    connection_limit_pb2 as _connection_limit,  # noqa: F401
)
from envoy.extensions.filters.network.direct_response.v3 import (
    config_pb2 as _direct_response,  # noqa: F401
)
from envoy.extensions.filters.network.http_connection_manager.v3 import (
    http_connection_manager_pb2 as _manager,  # noqa: F401
)
from envoy.extensions.transport_sockets.tls.v3 import secret_pb2
from envoy.extensions.transport_sockets.tls.v3 import tls_pb2 as _tls  # noqa: F401
from envoy.extensions.upstreams.http.v3 import (
    http_protocol_options_pb2 as _protocol_options,  # noqa: F401
)
from google.protobuf import json_format
from google.protobuf.message import Message

from buildpool.buildkit.solve_requests import MAX_MESSAGE_BYTES
from buildpool.core.pki import KeyPair
from buildpool.core.routing.values import ROUTE_BUILDER, ROUTE_METADATA, label_of
from buildpool.gateway.pools.config import PoolConfig
from buildpool.gateway.xds.bootstrap import ROUTER
from buildpool.gateway.xds.ext_proc_filter import FILTER, ext_proc_filter, routes
from buildpool.gateway.xds.limits import LIMITS, Limits, Rate

LISTENER: Final = "gateway"
NOBODY: Final = "nobody"
"""Name of the chain that takes connections which ask for no pool."""
CONNECTION: Final = "connection"
"""Tag of the access log: the number of a connection, as Envoy counts."""
SERVER_NAME: Final = "server-name"
"""Tag of the access log: the name that a client asked for."""
CHAIN: Final = "chain"
"""Tag of the access log: the filter chain that took a connection, if one did."""
FAILURE: Final = "failure"
"""Tag of the access log: why a handshake failed, if it did, as Envoy's TLS library says."""
LONGEST_HEADERS_KIB: Final = 8192
"""Length of the headers of a builder's answer: the most that Envoy allows. BuildKit's own clients
take 16 MiB."""
_TYPE: Final = "type.googleapis.com/envoy."
_HTTP2: Final = {
    "initial_stream_window_size": 2 << 20,
    "initial_connection_window_size": 4 << 20,
}
"""What Envoy keeps of an upload whose builder does not read it: some large ones fill its memory."""


def listener(
    chains: Iterable[FilterChain], *, port: int, limits: Limits = LIMITS
) -> listener_pb2.Listener:
    """The one listener, with the chains of all pools."""
    result = _parsed(
        {
            "name": LISTENER,
            "address": {
                "socket_address": {"address": "::", "port_value": port, "ipv4_compat": True}
            },
            "enable_reuse_port": True,
            # A request that starts a build is gathered as a whole.
            "per_connection_buffer_limit_bytes": MAX_MESSAGE_BYTES + (1 << 20),
            "listener_filters": [
                {
                    "name": "tls_inspector",
                    "typed_config": {
                        "@type": f"{_TYPE}extensions.filters.listener.tls_inspector.v3.TlsInspector"
                    },
                }
            ],
            "listener_filters_timeout": _seconds(limits.hello),
            "access_log": [_access_log()],
            # Hangs up on clients that ask for no pool. The listener is there without any pool, too.
            "default_filter_chain": {
                "name": NOBODY,
                "filters": [
                    {
                        "name": "hang-up",
                        "typed_config": {
                            "@type": f"{_TYPE}extensions.filters.network.direct_response.v3.Config"
                        },
                    }
                ],
            },
        },
        listener_pb2.Listener(),
    )
    result.filter_chains.extend(chains)
    return result


def chain(config: PoolConfig, limits: Limits = LIMITS) -> FilterChain:
    """What becomes of a connection to one pool."""
    label = label_of(config.key)
    return _parsed(
        {
            "name": label,
            # Each once: Envoy takes two equal ones for an overlap, and refuses the whole listener.
            "filter_chain_match": {"server_names": sorted(set(config.brief.server_names))},
            "filters": [
                {
                    "name": "connection-limit",
                    "typed_config": {
                        "@type": f"{_TYPE}extensions.filters.network.connection_limit.v3."
                        "ConnectionLimit",
                        "stat_prefix": "gateway",
                        "max_connections": limits.connections,
                    },
                },
                {"name": "http", "typed_config": _connection_manager(label, limits)},
            ],
            "transport_socket_connect_timeout": "10s",
            "transport_socket": {
                "name": "tls",
                "typed_config": {
                    "@type": f"{_TYPE}extensions.transport_sockets.tls.v3.DownstreamTlsContext",
                    "require_client_certificate": True,
                    # A session that is taken up again would not show its certificate again.
                    "disable_stateless_session_resumption": True,
                    "disable_stateful_session_resumption": True,
                    "common_tls_context": {
                        "alpn_protocols": ["h2"],
                        "tls_params": {"tls_minimum_protocol_version": "TLSv1_2"},
                        "tls_certificate_sds_secret_configs": [_secret(label, "server")],
                        "validation_context_sds_secret_config": _secret(label, "trust"),
                    },
                },
            },
        },
        FilterChain(),
    )


def cluster(config: PoolConfig) -> cluster_pb2.Cluster:
    """How the builders of one pool are reached: at the address that the router says."""
    label = label_of(config.key)
    options = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
    unlimited = 1_000_000
    limits = ("max_connections", "max_pending_requests", "max_requests", "max_retries")
    return _parsed(
        {
            "name": label,
            "type": "ORIGINAL_DST",
            "lb_policy": "CLUSTER_PROVIDED",
            "connect_timeout": "5s",
            "original_dst_lb_config": {
                "metadata_key": {"key": ROUTE_METADATA, "path": [{"key": ROUTE_BUILDER}]}
            },
            "circuit_breakers": {"thresholds": [dict.fromkeys(limits, unlimited)]},
            # A connection of a client is one to a builder, too: its end is seen by the daemon.
            "connection_pool_per_downstream_connection": True,
            # No pings of HTTP/2: BuildKit hangs up on those that come more often than every 5 min.
            "upstream_connection_options": {
                "tcp_keepalive": {
                    "keepalive_probes": 3,
                    "keepalive_time": 10,
                    "keepalive_interval": 5,
                }
            },
            "typed_extension_protocol_options": {
                options: {
                    "@type": f"type.googleapis.com/{options}",
                    # A builder that drains waits for connections, and one that rests would keep
                    # an old certificate.
                    "common_http_protocol_options": {
                        "idle_timeout": "5s",
                        # How a build failed stands in a header, with the whole Dockerfile.
                        "max_response_headers_kb": LONGEST_HEADERS_KIB,
                    },
                    "explicit_http_config": {
                        # The other codec cuts the connection over one header of 64 KiB.
                        "http2_protocol_options": {**_HTTP2, "use_oghttp2_codec": True}
                    },
                }
            },
            "transport_socket": {
                "name": "tls",
                "typed_config": {
                    "@type": f"{_TYPE}extensions.transport_sockets.tls.v3.UpstreamTlsContext",
                    "sni": config.brief.upstream_name,
                    "common_tls_context": {
                        "alpn_protocols": ["h2"],
                        "tls_params": {"tls_minimum_protocol_version": "TLSv1_2"},
                        "tls_certificate_sds_secret_configs": [_secret(label, "upstream")],
                        "combined_validation_context": {
                            "default_validation_context": {
                                "match_typed_subject_alt_names": [
                                    {
                                        "san_type": "DNS",
                                        "matcher": {"exact": config.brief.upstream_name},
                                    }
                                ]
                            },
                            "validation_context_sds_secret_config": _secret(label, "trust"),
                        },
                    },
                },
            },
        },
        cluster_pb2.Cluster(),
    )


def secrets(config: PoolConfig) -> tuple[secret_pb2.Secret, ...]:
    """The certificates of one pool."""
    label = label_of(config.key)
    trust = secret_pb2.Secret(name=f"{label}/trust")
    trust.validation_context.trusted_ca.inline_bytes = config.trust
    return (
        _certificate(f"{label}/server", config.server),
        _certificate(f"{label}/upstream", config.upstream),
        trust,
    )


def _connection_manager(label: str, limits: Limits) -> dict[str, Any]:
    return {
        "@type": f"{_TYPE}extensions.filters.network.http_connection_manager.v3."
        "HttpConnectionManager",
        "stat_prefix": "gateway",
        # Not by ALPN: buildx offers none.
        "codec_type": "HTTP2",
        "stream_idle_timeout": "0s",
        "request_timeout": "0s",
        "http2_protocol_options": {
            **_HTTP2,
            "max_concurrent_streams": limits.streams,
            "connection_keepalive": {
                "interval": _seconds(limits.ping_interval),
                "timeout": _seconds(limits.ping_patience),
            },
        },
        "common_http_protocol_options": {
            "idle_timeout": _seconds(limits.idle),
            "max_connection_duration": _seconds(limits.oldest),
        },
        "generate_request_id": False,
        # Nothing that a client says of itself: its address is half the name of its connection.
        "use_remote_address": True,
        "skip_xff_append": True,
        "route_config": {
            "name": label,
            "validate_clusters": False,
            "virtual_hosts": [{"name": "all", "domains": ["*"], "routes": list(routes(label))}],
        },
        "http_filters": [
            *(
                {"name": f"{of}-rate", "typed_config": _rate_limit(of, rate)}
                for of, rate in (("connection", limits.connection_rate), ("pool", limits.pool_rate))
            ),
            {"name": FILTER, "typed_config": ext_proc_filter()},
            {
                "name": "forward",
                "typed_config": {
                    "@type": f"{_TYPE}extensions.filters.http.router.v3.Router",
                    "suppress_envoy_headers": True,
                },
            },
        ],
    }


def _seconds(time: timedelta) -> str:
    return f"{time.total_seconds():.3f}s"


def _rate_limit(of: str, rate: Rate) -> dict[str, Any]:
    always = {"default_value": {"numerator": 100}}
    return {
        "@type": f"{_TYPE}extensions.filters.http.local_ratelimit.v3.LocalRateLimit",
        "stat_prefix": "gateway",
        "token_bucket": {
            "max_tokens": rate.burst,
            "tokens_per_fill": rate.per_second,
            "fill_interval": "1s",
        },
        "filter_enabled": always,
        "filter_enforced": always,
        "local_rate_limit_per_downstream_connection": of == "connection",
        "rate_limited_as_resource_exhausted": True,
    }


def _access_log() -> dict[str, Any]:
    tags = {
        CONNECTION: "%CONNECTION_ID%",
        SERVER_NAME: "%REQUESTED_SERVER_NAME%",
        CHAIN: "%FILTER_CHAIN_NAME%",
        FAILURE: "%DOWNSTREAM_TRANSPORT_FAILURE_REASON%",
    }
    return {
        "name": "connections",
        "typed_config": {
            "@type": f"{_TYPE}extensions.access_loggers.grpc.v3.TcpGrpcAccessLogConfig",
            "common_config": {
                "log_name": "connections",
                "transport_api_version": "V3",
                "grpc_service": {"envoy_grpc": {"cluster_name": ROUTER}},
                "buffer_flush_interval": "0.1s",
                "custom_tags": [{"tag": tag, "value": value} for tag, value in tags.items()],
            },
        },
    }


def _secret(label: str, which: str) -> dict[str, Any]:
    return {
        "name": f"{label}/{which}",
        # One that is missing must not hold up the other pools.
        "sds_config": {"resource_api_version": "V3", "ads": {}, "initial_fetch_timeout": "1s"},
    }


def _certificate(name: str, pair: KeyPair) -> secret_pb2.Secret:
    secret = secret_pb2.Secret(name=name)
    secret.tls_certificate.certificate_chain.inline_bytes = pair.certificate
    secret.tls_certificate.private_key.inline_bytes = pair.key
    return secret


def _parsed(described: dict[str, Any], message: Message) -> Any:
    return json_format.ParseDict(described, message)
