from __future__ import annotations

from typing import Any

import pytest

from buildpool.client.values import Cluster, Forward, Target, Via, Way
from buildpool.client.ways import Reach, client_of, connection_of, targets_of, via_of, way_of
from buildpool.core.api import Pool, parse_pool
from buildpool.core.errors import BuildpoolError
from samples import a_pool, a_raw_pool

GATEWAY = Target("buildpool-system", "buildpool-gateway")


def with_builders(name: str = "ci", **spec: Any) -> Pool:
    """A pool in which a builder takes builds."""
    raw = a_raw_pool(name=name, **spec)
    return parse_pool({**raw, "status": {"readyReplicas": 1}})


def by_name() -> Pool:
    return a_pool(routing="Gateway", gateway={"hostnames": ["build.example.com"]})


def test_the_way_is_the_service_in_the_cluster_then_a_name_then_a_port_forward() -> None:
    assert via_of(by_name(), asked=None, is_inside=True) is Via.SERVICE
    assert via_of(by_name(), asked=None, is_inside=False) is Via.HOSTNAME
    assert via_of(a_pool(), asked=None, is_inside=False) is Via.PORT_FORWARD
    assert via_of(by_name(), asked=Via.PORT_FORWARD, is_inside=True) is Via.PORT_FORWARD
    with pytest.raises(BuildpoolError, match=r"pool builds/ci has no host name; add one"):
        via_of(a_pool(), asked=Via.HOSTNAME, is_inside=False)


def test_each_way_expects_the_name_that_the_certificate_is_for() -> None:
    service = "ci.builds.svc"
    assert way_of(a_pool(), Via.SERVICE, gateway=None) == Way(Via.SERVICE, service, service)
    host = "build.example.com"
    assert way_of(by_name(), Via.HOSTNAME, gateway=None) == Way(Via.HOSTNAME, host, host)
    direct = way_of(with_builders(), Via.PORT_FORWARD, gateway=None)
    assert direct == Way(Via.PORT_FORWARD, service, target=Target("builds", "ci"))
    behind = way_of(a_pool(routing="Gateway"), Via.PORT_FORWARD, gateway=GATEWAY)
    assert behind == Way(Via.PORT_FORWARD, service, target=GATEWAY)


def test_what_cannot_be_forwarded_says_what_to_do() -> None:
    with pytest.raises(BuildpoolError, match="no builder that a port-forward could lead to"):
        way_of(a_pool(), Via.PORT_FORWARD, gateway=None)
    with pytest.raises(BuildpoolError, match="--gateway=buildpool-system/buildpool-gateway"):
        way_of(a_pool(routing="Gateway"), Via.PORT_FORWARD, gateway=None)


def test_the_client_is_the_only_one_or_the_one_that_is_named() -> None:
    assert client_of(a_pool(), "") == "default"
    two = a_pool(access={"clients": [{"name": "anna"}, {"name": "ci"}]})
    assert client_of(two, "ci") == "ci"
    with pytest.raises(BuildpoolError, match="has the clients anna, ci; name yours by --client"):
        client_of(two, "")
    with pytest.raises(BuildpoolError, match="has no client bert; it has anna, ci"):
        client_of(two, "bert")


def test_pools_behind_one_gateway_share_a_port() -> None:
    cluster = Cluster("builds", "work")
    behind = [with_builders(name, routing="Gateway") for name in ("a", "b")]
    direct = with_builders("c", builders={"architecture": "arm64"})
    named = by_name()
    reaches = [
        *(Reach(p, "default", way_of(p, Via.PORT_FORWARD, gateway=GATEWAY)) for p in behind),
        Reach(direct, "default", way_of(direct, Via.PORT_FORWARD, gateway=None)),
        Reach(named, "default", way_of(named, Via.HOSTNAME, gateway=None)),
    ]
    own = Target("builds", "c")
    assert targets_of(reaches) == (GATEWAY, own)
    made = connection_of("all", cluster, reaches, ports={GATEWAY: 4001, own: 4002}, port=1234)
    assert made.forwards == (Forward(GATEWAY, 4001), Forward(own, 4002))
    assert [(node.name, node.address, node.server_name) for node in made.nodes] == [
        ("a", "tcp://127.0.0.1:4001", "a.builds.svc"),
        ("b", "tcp://127.0.0.1:4001", "b.builds.svc"),
        ("c", "tcp://127.0.0.1:4002", "c.builds.svc"),
        ("ci", "tcp://build.example.com:1234", "build.example.com"),
    ]
    assert [node.platform for node in made.nodes][1:3] == ["linux/amd64", "linux/arm64"]
