"""What Envoy starts with."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from envoy.config.bootstrap.v3 import bootstrap_pb2
from envoy.config.overload.v3 import overload_pb2
from envoy.extensions.resource_monitors.downstream_connections.v3 import (
    downstream_connections_pb2,
)
from envoy.extensions.resource_monitors.fixed_heap.v3 import fixed_heap_pb2
from envoy.extensions.resource_monitors.injected_resource.v3 import injected_resource_pb2
from envoy.extensions.upstreams.http.v3 import http_protocol_options_pb2
from google.protobuf import json_format

from buildpool.gateway.draining import ACTIVE, CONNECTIONS
from buildpool.gateway.xds.bootstrap import HISTORIES, MAX_CONNECTIONS, ROUTER, bootstrap

HTTP2 = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"


def parsed(memory: int = 0, goaway_file: str = "") -> bootstrap_pb2.Bootstrap:
    """As Envoy reads it: fields that it does not know are errors."""
    static = bootstrap(sockets=Path("/sockets"), memory=memory, goaway_file=goaway_file)
    text = json.dumps(static)
    return json_format.Parse(text, bootstrap_pb2.Bootstrap())


def test_nobody_outside_the_pod_reaches_what_envoy_starts_with() -> None:
    started = parsed()
    assert started.admin.address.pipe.path == "/sockets/admin.sock"
    for router in started.static_resources.clusters:
        (locality,) = router.load_assignment.endpoints
        (endpoint,) = locality.lb_endpoints
        assert endpoint.endpoint.address.pipe.path == "/sockets/router.sock"
    assert not started.static_resources.listeners


def test_all_of_the_pools_comes_from_the_router_as_changes() -> None:
    dynamic = parsed().dynamic_resources
    (service,) = dynamic.ads_config.grpc_services
    assert service.envoy_grpc.cluster_name == ROUTER
    assert dynamic.ads_config.api_type == dynamic.ads_config.DELTA_GRPC
    assert dynamic.cds_config.HasField("ads")
    assert dynamic.lds_config.HasField("ads")


def test_the_router_is_spoken_to_as_grpc_is_and_is_never_asked_too_much() -> None:
    router = parsed().static_resources.clusters[0]
    (limits,) = router.circuit_breakers.thresholds
    assert limits.max_requests.value >= 10 * MAX_CONNECTIONS
    assert limits.max_pending_requests.value >= 10 * MAX_CONNECTIONS
    assert limits.max_retries.value >= 10 * MAX_CONNECTIONS
    options = http_protocol_options_pb2.HttpProtocolOptions()
    assert router.typed_extension_protocol_options[HTTP2].Unpack(options)
    assert options.explicit_http_config.HasField("http2_protocol_options")


def test_who_does_not_read_what_the_router_answers_holds_up_nobody_else() -> None:
    histories = parsed().static_resources.clusters[1]
    assert histories.name == HISTORIES
    assert histories.connection_pool_per_downstream_connection
    options = http_protocol_options_pb2.HttpProtocolOptions()
    assert histories.typed_extension_protocol_options[HTTP2].Unpack(options)
    windows = options.explicit_http_config.http2_protocol_options
    assert windows.initial_stream_window_size.value < 1 << 20


def test_connections_are_bounded() -> None:
    (monitor,) = parsed().overload_manager.resource_monitors
    limit = downstream_connections_pb2.DownstreamConnectionsConfig()
    assert monitor.typed_config.Unpack(limit)
    assert limit.max_active_downstream_connections == 20_000


@pytest.mark.parametrize(
    ("name", "is_kept"),
    [
        (ACTIVE, True),
        (CONNECTIONS, True),
        ("listener_manager.lds.update_rejected", True),
        ("cluster.router.upstream_rq_pending_total", True),
        ("cluster.builds/ci.upstream_rq_total", False),
        ("cluster.router-of/somebody.upstream_rq_total", False),
        ("sds.builds/ci/server.update_success", False),
        ("listener.[__]_1234.ssl.handshake", False),
    ],
)
def test_numbers_are_kept_of_what_does_not_grow_with_the_pools(name: str, is_kept: bool) -> None:
    kept = parsed().stats_config.stats_matcher.inclusion_list.patterns
    found = any(
        name.startswith(pattern.prefix) if pattern.prefix else name.endswith(pattern.suffix)
        for pattern in kept
    )
    assert found is is_kept


def test_near_the_end_of_its_memory_the_largest_requests_end_and_not_envoy() -> None:
    manager = parsed(memory=1 << 30).overload_manager
    heap = fixed_heap_pb2.FixedHeapConfig()
    assert manager.resource_monitors[1].typed_config.Unpack(heap)
    assert heap.max_heap_size_bytes == (1 << 30) * 9 // 10
    assert [action.name.rpartition(".")[2] for action in manager.actions] == [
        "shrink_heap",
        "reset_high_memory_stream",
        "stop_accepting_requests",
        "stop_accepting_connections",
    ]
    assert not parsed().overload_manager.actions


def test_who_keeps_a_connection_is_sent_elsewhere_by_a_file() -> None:
    manager = parsed(goaway_file="/bootstrap/goaway").overload_manager
    file = injected_resource_pb2.InjectedResourceConfig()
    assert manager.resource_monitors[1].typed_config.Unpack(file)
    assert file.filename == "/bootstrap/goaway"
    # One for those that get answers, and one for those that wait for none.
    names = [action.name.rpartition(".")[2] for action in manager.actions]
    assert names == ["disable_http_keepalive", "reduce_timeouts"]
    for action in manager.actions:
        assert [trigger.name for trigger in action.triggers] == [manager.resource_monitors[1].name]
    timers = overload_pb2.ScaleTimersOverloadActionConfig()
    assert manager.actions[1].typed_config.Unpack(timers)
    (idle,) = timers.timer_scale_factors
    assert (
        idle.timer == overload_pb2.ScaleTimersOverloadActionConfig.HTTP_DOWNSTREAM_CONNECTION_IDLE
    )
