"""One pool as Envoy knows it. That a real Envoy takes it so is tested with the whole gateway."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from envoy.config.listener.v3 import listener_components_pb2
from envoy.config.route.v3 import route_components_pb2
from envoy.extensions.filters.http.ext_proc.v3 import ext_proc_pb2
from envoy.extensions.filters.http.ext_proc.v3.processing_mode_pb2 import ProcessingMode as Mode
from envoy.extensions.filters.http.local_ratelimit.v3 import local_rate_limit_pb2
from envoy.extensions.filters.network.connection_limit.v3 import connection_limit_pb2
from envoy.extensions.filters.network.http_connection_manager.v3 import (
    http_connection_manager_pb2,
)
from envoy.extensions.transport_sockets.tls.v3 import tls_pb2
from envoy.extensions.transport_sockets.tls.v3.common_pb2 import TlsParameters
from envoy.extensions.upstreams.http.v3 import http_protocol_options_pb2

from buildpool.buildkit.history import METHOD as LISTEN
from buildpool.buildkit.methods import BRIDGE, CONTENT, CONTROL
from buildpool.buildkit.solve_requests import MAX_MESSAGE_BYTES
from buildpool.core.routing.values import ROUTE_BUILDER, ROUTE_METADATA
from buildpool.gateway.ext_proc.records import MAX_QUESTION_BYTES
from buildpool.gateway.xds.bootstrap import HISTORIES
from buildpool.gateway.xds.ext_proc_filter import FILTER
from buildpool.gateway.xds.resources import chain, cluster, listener, secrets
from unit.gateway.xds.configs import a_config

PORT = 1234
HTTP2 = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"


def unpacked(packed: Any, kind: type[Any]) -> Any:
    """What is in an ``Any``."""
    message = kind()
    assert packed.Unpack(message)
    return message


def manager(of: listener_components_pb2.FilterChain) -> Any:
    """How a chain's connections are handled."""
    (limit, network) = of.filters
    assert limit.name == "connection-limit"
    return unpacked(network.typed_config, http_connection_manager_pb2.HttpConnectionManager)


def routes() -> list[route_components_pb2.Route]:
    """Where requests of a pool go."""
    (host,) = manager(chain(a_config())).route_config.virtual_hosts
    return list(host.routes)


def route_of(path: str) -> route_components_pb2.Route | None:
    """The first that matches, as Envoy takes it."""
    return next(
        (
            route
            for route in routes()
            if route.match.path == path
            or (route.match.prefix and path.startswith(route.match.prefix))
        ),
        None,
    )


def mode_of(path: str) -> Any:
    """What the router is shown of a request of this path."""
    route = route_of(path)
    assert route is not None
    if FILTER not in route.typed_per_filter_config:
        (*_, asking, _) = manager(chain(a_config())).http_filters
        return unpacked(asking.typed_config, ext_proc_pb2.ExternalProcessor).processing_mode
    own = route.typed_per_filter_config[FILTER]
    return unpacked(own, ext_proc_pb2.ExtProcPerRoute).overrides.processing_mode


def test_a_chain_changes_with_nothing_but_the_names_of_its_pool() -> None:
    before = a_config()
    after = a_config(issue="second", slots=7, max_wait="1h", uid="another")
    assert chain(before) == chain(after)
    assert cluster(before) == cluster(after)
    assert chain(before) != chain(a_config(hostnames=("build.example.com",)))
    assert secrets(before) != secrets(after)


def test_the_listener_has_nothing_that_changes_but_its_chains() -> None:
    empty = listener((), port=PORT)
    full = listener((chain(a_config("a")), chain(a_config("b"))), port=PORT)
    assert [each.name for each in full.filter_chains] == ["builds/a", "builds/b"]
    del full.filter_chains[:]
    assert full == empty


def test_a_name_that_is_listed_twice_is_matched_once() -> None:
    match = chain(a_config(hostnames=("ci.builds.svc", "x.example", "x.example")))
    names = match.filter_chain_match.server_names
    assert list(names) == sorted(set(names))
    assert "x.example" in names


def test_certificates_are_in_secrets_and_nowhere_else() -> None:
    config = a_config()
    shown = (chain(config), cluster(config))
    for content in (config.server, config.upstream):
        for message in shown:
            assert content.key not in message.SerializeToString()
            assert content.certificate not in message.SerializeToString()
    assert config.server.key in b"".join(each.SerializeToString() for each in secrets(config))


def test_every_secret_that_is_asked_for_is_there_and_waited_for_briefly() -> None:
    config = a_config()
    down = unpacked(chain(config).transport_socket.typed_config, tls_pb2.DownstreamTlsContext)
    up = unpacked(cluster(config).transport_socket.typed_config, tls_pb2.UpstreamTlsContext)
    asked = [
        *down.common_tls_context.tls_certificate_sds_secret_configs,
        down.common_tls_context.validation_context_sds_secret_config,
        *up.common_tls_context.tls_certificate_sds_secret_configs,
        up.common_tls_context.combined_validation_context.validation_context_sds_secret_config,
    ]
    assert {each.name for each in asked} == {secret.name for secret in secrets(config)}
    assert {each.sds_config.initial_fetch_timeout.seconds for each in asked} == {1}


def test_a_client_always_shows_its_certificate() -> None:
    context = unpacked(
        chain(a_config()).transport_socket.typed_config, tls_pb2.DownstreamTlsContext
    )
    assert context.require_client_certificate.value
    assert context.disable_stateless_session_resumption
    assert context.disable_stateful_session_resumption
    least = context.common_tls_context.tls_params.tls_minimum_protocol_version
    assert least == TlsParameters.TLSv1_2


def test_a_builder_is_known_by_one_name_exactly() -> None:
    config = a_config(upstream_name="ci.builds.svc")
    context = unpacked(cluster(config).transport_socket.typed_config, tls_pb2.UpstreamTlsContext)
    checked = context.common_tls_context.combined_validation_context.default_validation_context
    (name,) = checked.match_typed_subject_alt_names
    assert (context.sni, name.matcher.exact) == ("ci.builds.svc", "ci.builds.svc")
    assert name.san_type == name.DNS


def test_only_what_the_router_says_is_an_address() -> None:
    found = cluster(a_config()).original_dst_lb_config
    assert found.metadata_key.key == ROUTE_METADATA
    assert [each.key for each in found.metadata_key.path] == [ROUTE_BUILDER]
    assert not found.use_http_header
    (*_, asking, _) = manager(chain(a_config())).http_filters
    filtered = unpacked(asking.typed_config, ext_proc_pb2.ExternalProcessor)
    assert list(filtered.metadata_options.receiving_namespaces.untyped) == [ROUTE_METADATA]


@pytest.mark.parametrize(
    ("path", "longest"),
    [
        (f"{CONTROL}Solve", MAX_MESSAGE_BYTES),
        (f"{BRIDGE}Solve", MAX_MESSAGE_BYTES),
        (f"{CONTROL}Status", MAX_QUESTION_BYTES),
        (f"{CONTROL}ListenBuildHistory", MAX_QUESTION_BYTES),
        (f"{CONTROL}UpdateBuildHistory", MAX_QUESTION_BYTES),
        (f"{CONTENT}Info", MAX_QUESTION_BYTES),
        (f"{CONTENT}Read", MAX_QUESTION_BYTES),
    ],
)
def test_little_more_of_a_message_is_gathered_than_is_taken(path: str, longest: int) -> None:
    route = route_of(path)
    assert route is not None
    assert longest < route.request_body_buffer_limit.value <= 2 * longest


def test_nothing_ends_a_build_for_its_length() -> None:
    handled = manager(chain(a_config()))
    assert handled.stream_idle_timeout.ToTimedelta().total_seconds() == 0
    assert handled.request_timeout.ToTimedelta().total_seconds() == 0
    # The longest build; and what runs on a connection then goes on.
    longest = handled.common_http_protocol_options.max_connection_duration.ToTimedelta()
    assert longest == timedelta(days=1), "see builders.maxBuildDuration"
    for route in routes():
        assert route.route.HasField("timeout")
        assert route.route.timeout.ToTimedelta().total_seconds() == 0
        assert route.route.idle_timeout.ToTimedelta().total_seconds() == 0


@pytest.mark.parametrize(
    ("path", "request_body", "response_headers", "response_trailers"),
    [
        (f"{CONTROL}ListWorkers", Mode.NONE, Mode.SKIP, Mode.SKIP),
        (f"{CONTROL}Session", Mode.NONE, Mode.SKIP, Mode.SEND),
        (f"{CONTROL}Solve", Mode.BUFFERED_PARTIAL, Mode.SEND, Mode.SEND),
        (f"{CONTROL}Status", Mode.BUFFERED_PARTIAL, Mode.SKIP, Mode.SKIP),
        (f"{BRIDGE}Solve", Mode.BUFFERED_PARTIAL, Mode.SKIP, Mode.SKIP),
        (f"{BRIDGE}Return", Mode.NONE, Mode.SKIP, Mode.SKIP),
        ("/grpc.health.v1.Health/Check", Mode.NONE, Mode.SKIP, Mode.SKIP),
    ],
)
def test_the_router_sees_of_a_request_what_it_needs_and_no_more(
    path: str, request_body: int, response_headers: int, response_trailers: int
) -> None:
    mode = mode_of(path)
    assert mode.request_header_mode == Mode.SEND
    assert mode.request_body_mode == request_body
    assert mode.response_header_mode == response_headers
    assert mode.response_body_mode == Mode.NONE
    assert mode.response_trailer_mode == response_trailers


@pytest.mark.parametrize(
    "path", ["/", "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", "/metrics", "/moby"]
)
def test_what_is_none_of_buildkits_methods_goes_nowhere(path: str) -> None:
    assert route_of(path) is None


def test_all_goes_to_the_pools_own_cluster_but_what_the_router_answers() -> None:
    config = a_config("web", namespace="team")
    (host,) = manager(chain(config)).route_config.virtual_hosts
    ours = [route for route in host.routes if route.route.cluster == HISTORIES]
    assert [route.match.path for route in ours] == [LISTEN]
    others = {route.route.cluster for route in host.routes if route not in ours}
    assert others == {cluster(config).name}


def test_a_solve_of_the_greatest_length_has_room() -> None:
    served = listener((), port=PORT).per_connection_buffer_limit_bytes.value
    assert MAX_MESSAGE_BYTES < served < 2 * MAX_MESSAGE_BYTES


# --- limits, as docs/how-to/gateway.md and the changelog tell of them -----------------------------


def test_an_upload_that_its_builder_does_not_read_keeps_little_of_envoys_memory() -> None:
    """Windows of 16 and 32 MiB took 29 MiB for each: thirty of them were all that Envoy has."""
    options = cluster(a_config()).typed_extension_protocol_options[HTTP2]
    upstream = unpacked(options, http_protocol_options_pb2.HttpProtocolOptions)
    downstream = manager(chain(a_config())).http2_protocol_options
    for side in (downstream, upstream.explicit_http_config.http2_protocol_options):
        # None is no limit: Envoy's own are 256 MiB.
        assert 0 < side.initial_stream_window_size.value <= 2 << 20
        assert 0 < side.initial_connection_window_size.value <= 4 << 20


def test_a_pool_has_four_thousand_connections() -> None:
    (limit, _) = chain(a_config()).filters
    found = unpacked(limit.typed_config, connection_limit_pb2.ConnectionLimit)
    assert found.max_connections.value == 4_000


def test_a_connection_has_two_thousand_requests_and_each_kind_of_end() -> None:
    handled = manager(chain(a_config()))
    assert handled.http2_protocol_options.max_concurrent_streams.value == 2_000
    pings = handled.http2_protocol_options.connection_keepalive
    assert pings.interval.ToTimedelta() == timedelta(seconds=30)
    assert pings.timeout.ToTimedelta() == timedelta(seconds=20)
    idle = handled.common_http_protocol_options.idle_timeout.ToTimedelta()
    assert idle == timedelta(minutes=10)
    hello = listener([], port=PORT).listener_filters_timeout.ToTimedelta()
    assert hello == timedelta(seconds=5)


@pytest.mark.parametrize(
    ("name", "per_second", "burst", "is_of_connection"),
    [("connection-rate", 300, 4_000, True), ("pool-rate", 1_000, 10_000, False)],
)
def test_who_asks_is_asked_about_so_often_a_second(
    name: str, per_second: int, burst: int, is_of_connection: bool
) -> None:
    (found,) = (each for each in manager(chain(a_config())).http_filters if each.name == name)
    limit = unpacked(found.typed_config, local_rate_limit_pb2.LocalRateLimit)
    bucket = limit.token_bucket
    assert (bucket.tokens_per_fill.value, bucket.max_tokens) == (per_second, burst)
    assert bucket.fill_interval.ToTimedelta() == timedelta(seconds=1)
    assert limit.local_rate_limit_per_downstream_connection == is_of_connection
    for fraction in (limit.filter_enabled, limit.filter_enforced):
        assert fraction.default_value.numerator == 100
